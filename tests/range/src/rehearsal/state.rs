//! Everything that a rollback must bring back, as the range itself sees it.
//!
//! Taken before and after a run and compared as JSON: what differs is named
//! by its path. Nothing here comes from the product.

use crate::range::{Error, Range, applications};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Triggers of the shop with their modes, user triggers only.
const TRIGGERS: &str = "SELECT c.relname || '.' || t.tgname AS name, t.tgenabled AS mode \
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid \
    JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = 'shop' AND NOT t.tgisinternal ORDER BY 1";

const ROLES: &str = "SELECT rolname AS name, rolcanlogin AS login FROM pg_roles \
    WHERE rolname IN ('shop_app', 'batch_app') ORDER BY 1";

const SLOTS: &str = "SELECT slot_name AS name, plugin, active FROM pg_replication_slots ORDER BY 1";

/// The state of the landscape at one time.
#[derive(Debug, Clone, Serialize)]
pub struct State {
    /// Listeners, accounts, parameters, triggers, restricted session.
    pub oracle: Value,
    pub postgres: Value,
    /// Tasks by identifier with their status.
    pub dms: Value,
    /// Names of the alarms.
    pub alarms: Value,
    /// Per host: units with their states, crontabs, configuration link.
    pub hosts: Value,
}

impl State {
    /// Looks at everything.
    ///
    /// # Errors
    /// When one of the range's parts does not answer.
    pub fn of(range: &Range) -> Result<Self, Error> {
        Ok(Self {
            oracle: oracle(&range.oracle.observe()?),
            postgres: json!({
                "triggers": range.postgres.rows(TRIGGERS)?,
                "roles": range.postgres.rows(ROLES)?,
                "slots": range.postgres.rows(SLOTS)?,
            }),
            dms: tasks(&range.dms.get("/control/tasks")?),
            alarms: range.dms.get("/control/alarms")?,
            hosts: hosts(range)?,
        })
    }

    /// What differs from `before`, one line each, without what a rollback is
    /// not meant to bring back: the application roles were open before the
    /// run and stay closed, since nobody writes to PostgreSQL.
    #[must_use]
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let whole = |state: &Self| {
            let mut value = serde_json::to_value(state).unwrap_or_default();
            if let Some(postgres) = value["postgres"].as_object_mut() {
                postgres.remove("roles");
            }
            value
        };
        compare("", &whole(before), &whole(self), &mut found);
        found
    }
}

fn oracle(observed: &Value) -> Value {
    let listeners: Map<String, Value> = observed["listeners"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            let name = format!("{}.{}", text(&one["host"]), text(&one["name"]));
            (
                name,
                json!({"running": one["running"], "enabled": one["enabled"]}),
            )
        })
        .collect();
    let restricted: Vec<&Value> = observed["instances"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|i| &i["restricted"])
        .collect();
    json!({
        "listeners": listeners,
        "accounts": observed["accounts"],
        "triggers": observed["triggers"],
        "parameters": observed["parameters"],
        "spfile": observed["spfile"],
        "restricted": restricted,
    })
}

fn tasks(list: &Value) -> Value {
    let tasks: Map<String, Value> = list
        .as_array()
        .into_iter()
        .flatten()
        .map(|task| (text(&task["identifier"]), task["status"].clone()))
        .collect();
    Value::Object(tasks)
}

fn hosts(range: &Range) -> Result<Value, Error> {
    let mut all = Map::new();
    for host in &range.hosts {
        let mut units = Map::new();
        for name in applications::units_of(&host.name) {
            let unit = host.unit(name)?;
            units.insert(
                (*name).to_owned(),
                json!({"active": unit.get("ActiveState"), "enabled": unit.get("UnitFileState")}),
            );
        }
        let shop = range.layout.shop(&host.name);
        let link = std::fs::read_link(shop.join("etc/database.toml")).ok();
        let link = link.and_then(|to| to.file_name().map(|n| n.to_string_lossy().into_owned()));
        let mut crontabs: Vec<String> = std::fs::read_dir(shop.join("cron.d"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        crontabs.sort();
        all.insert(
            host.name.clone(),
            json!({"units": units, "database": link, "crontabs": crontabs}),
        );
    }
    Ok(Value::Object(all))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    if let (Value::Object(old), Value::Object(new)) = (before, after) {
        let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let at = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
            compare(&format!("{path}/{key}"), &at(old), &at(new), found);
        }
    } else if before != after {
        found.push(format!("{path}: was {before}, is {after}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named_by_its_path() {
        let state = |jobs: &str, login: bool| State {
            oracle: json!({"parameters": {"1": {"job_queue_processes": jobs}}}),
            postgres: json!({"roles": [{"name": "shop_app", "login": login}]}),
            dms: json!({}),
            alarms: json!([]),
            hosts: json!({}),
        };
        let found = state("0", false).differences(&state("20", true));
        assert_eq!(
            found,
            [r#"/oracle/parameters/1/job_queue_processes: was "20", is "0""#]
        );
        assert!(
            state("20", false)
                .differences(&state("20", true))
                .is_empty()
        );
    }
}
