//! What a caller says about a task, checked: identifiers, endpoints, mappings,
//! settings and positions become a [`Definition`], or a fault in the API's words.

use crate::api::errors::Fault;
use crate::replicate::mapping::TableMapping;
use crate::task::registry::Registry;
use crate::task::resources::is_identifier;
use crate::task::settings::TaskSettings;
use crate::task::state::{Definition, MigrationType, StartType, StopPosition};
use std::collections::BTreeMap;

/// What CreateReplicationTask asks for, in plain text.
#[derive(Debug, Clone, Default)]
pub struct NewTask {
    /// `ReplicationTaskIdentifier`.
    pub identifier: String,
    /// `SourceEndpointArn`.
    pub source_arn: String,
    /// `TargetEndpointArn`.
    pub target_arn: String,
    /// `ReplicationInstanceArn`.
    pub instance_arn: String,
    /// `MigrationType`.
    pub migration_type: String,
    /// `TableMappings`.
    pub table_mappings: String,
    /// `ReplicationTaskSettings`.
    pub settings: Option<String>,
    /// `CdcStartPosition`.
    pub cdc_start_position: Option<String>,
    /// `CdcStopPosition`.
    pub cdc_stop_position: Option<String>,
    /// `TaskData`.
    pub task_data: Option<String>,
    /// `Tags`, by key.
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default)]
pub struct Modification {
    pub identifier: Option<String>,
    pub migration_type: Option<String>,
    pub table_mappings: Option<String>,
    pub settings: Option<String>,
    pub cdc_start_position: Option<String>,
    pub cdc_stop_position: Option<String>,
    pub task_data: Option<String>,
}

/// What StartReplicationTask asks for.
#[derive(Debug, Clone)]
pub struct StartRequest {
    pub start: StartType,
    /// From where, instead of the task's own start position.
    pub cdc_start_position: Option<String>,
    /// Until when, instead of the task's own stop position.
    pub cdc_stop_position: Option<String>,
}

impl Registry {
    pub(super) fn define(&self, arn: String, new: NewTask) -> Result<Definition, Fault> {
        check_identifier(&new.identifier)?;
        if new.instance_arn != self.resources.instance_arn {
            return Err(Fault::not_found(format!(
                "Replication instance {} not found.",
                new.instance_arn
            )));
        }
        self.check_endpoints(&new)?;
        let settings = TaskSettings::parse(new.settings.as_deref()).map_err(Fault::invalid)?;
        let source = self.resources.endpoints.get(&new.source_arn);
        if source.is_some_and(|source| source.engine_name() == "oracle")
            && let Some(policy) = settings.stops_on.first()
        {
            return Err(Fault::invalid(format!(
                "ErrorBehavior.{policy} = STOP_TASK is supported here from PostgreSQL only"
            )));
        }
        Ok(Definition {
            identifier: new.identifier,
            arn,
            migration_type: migration_type(&new.migration_type)?,
            mappings: mappings(&new.table_mappings)?,
            mappings_text: new.table_mappings,
            settings,
            cdc_start_position: self.start_position(&new.source_arn, new.cdc_start_position)?,
            cdc_stop_position: stop_position(new.cdc_stop_position)?,
            source_arn: new.source_arn,
            target_arn: new.target_arn,
            task_data: new.task_data,
            tags: new.tags,
        })
    }

    fn check_endpoints(&self, new: &NewTask) -> Result<(), Fault> {
        use crate::config::EndpointKind::{Source, Target};
        let mut engines = Vec::with_capacity(2);
        for (arn, kind) in [(&new.source_arn, Source), (&new.target_arn, Target)] {
            let endpoint = self
                .resources
                .endpoints
                .get(arn)
                .ok_or_else(|| Fault::not_found(format!("Endpoint {arn} not found.")))?;
            if endpoint.kind() != kind {
                return Err(Fault::invalid(format!(
                    "Endpoint {arn} is not a {kind:?} endpoint."
                )));
            }
            engines.push(endpoint.engine_name());
        }
        if engines[0] == engines[1] {
            return Err(Fault::invalid(format!(
                "replication from {0} to {0} is not supported here",
                engines[0]
            )));
        }
        if engines[0] == "postgres" && new.migration_type != "cdc" {
            return Err(Fault::invalid(
                "a PostgreSQL source is supported here with MigrationType cdc only",
            ));
        }
        Ok(())
    }

    /// A start position is an SCN for Oracle; for PostgreSQL an LSN, and then the
    /// endpoint must name its own slot (AWS DMS user guide, PostgreSQL source).
    pub(super) fn start_position(
        &self,
        source_arn: &str,
        given: Option<String>,
    ) -> Result<Option<String>, Fault> {
        use crate::config::EndpointConfig::{Oracle, Postgres};
        let Some(text) = given else { return Ok(None) };
        match self.resources.endpoints.get(source_arn).map(AsRef::as_ref) {
            Some(Oracle(_)) if text.parse::<u64>().is_ok() => Ok(Some(text)),
            Some(Postgres(e)) if e.slot().is_none() => Err(Fault::combination(
                "CdcStartPosition needs an endpoint with PostgreSQLSettings.SlotName",
            )),
            Some(Postgres(_)) if crate::replicate::stream::parse_lsn(&text).is_some() => {
                Ok(Some(text))
            }
            _ => Err(Fault::invalid(format!(
                "CdcStartPosition {text:?} is not a position of the source"
            ))),
        }
    }
}

impl Registry {
    /// A task on a slot that the customer made must say from where it reads.
    ///
    /// Source: AWS DMS API reference, `PostgreSQLSettings.SlotName`; user guide,
    /// "Using native CDC start points to set up a CDC load of a PostgreSQL source".
    pub(super) fn check_slot(&self, definition: &Definition) -> Result<(), Fault> {
        let source = self.resources.endpoints.get(&definition.source_arn);
        let named = match source.map(AsRef::as_ref) {
            Some(crate::config::EndpointConfig::Postgres(source)) => source.slot(),
            _ => None,
        };
        match named {
            Some(slot) if definition.cdc_start_position.is_none() => Err(Fault::combination(
                format!("The slot {slot} of the source endpoint needs a CdcStartPosition."),
            )),
            _ => Ok(()),
        }
    }
}

impl Definition {
    /// The definition with what ModifyReplicationTask changes, positions aside.
    pub(super) fn changed(&self, change: &Modification) -> Result<Self, Fault> {
        let mut definition = self.clone();
        if let Some(identifier) = &change.identifier {
            definition.identifier.clone_from(identifier);
        }
        if let Some(text) = &change.migration_type {
            definition.migration_type = migration_type(text)?;
        }
        if let Some(text) = &change.table_mappings {
            definition.mappings = mappings(text)?;
            definition.mappings_text.clone_from(text);
        }
        if let Some(text) = &change.settings {
            definition.settings = TaskSettings::parse(Some(text)).map_err(Fault::invalid)?;
        }
        if change.task_data.is_some() {
            definition.task_data.clone_from(&change.task_data);
        }
        Ok(definition)
    }
}

pub(super) fn check_identifier(text: &str) -> Result<(), Fault> {
    if is_identifier(text) {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "The parameter ReplicationTaskIdentifier must be 1 to 255 letters, digits and single hyphens, beginning with a letter: {text:?}"
    )))
}

fn migration_type(text: &str) -> Result<MigrationType, Fault> {
    MigrationType::parse(text)
        .ok_or_else(|| Fault::invalid(format!("MigrationType {text:?} is not valid")))
}

fn mappings(text: &str) -> Result<TableMapping, Fault> {
    TableMapping::parse(text).map_err(|e| {
        let cause = std::error::Error::source(&e)
            .map(|s| format!(": {s}"))
            .unwrap_or_default();
        Fault::invalid(format!("{e}{cause}"))
    })
}

pub(super) fn stop_position(text: Option<String>) -> Result<Option<StopPosition>, Fault> {
    text.map(|t| StopPosition::parse(&t).map_err(Fault::invalid))
        .transpose()
}
