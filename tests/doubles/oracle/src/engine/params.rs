//! Initialisation parameters: in memory per instance, and in the server
//! parameter file per SID.

use super::errors::ora;
use super::state::Instance;
use crate::api::OraError;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Where SET and RESET work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Memory,
    Spfile,
    Both,
}

/// What is known about a parameter.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub name: &'static str,
    pub default: &'static str,
    /// V$PARAMETER.TYPE: 1 boolean, 2 string, 3 integer, 6 big integer.
    pub kind: u8,
    /// Whether ALTER SYSTEM changes it in a running instance.
    pub dynamic: bool,
    pub most: i64,
}

const fn known(
    name: &'static str,
    default: &'static str,
    kind: u8,
    dynamic: bool,
    most: i64,
) -> Known {
    Known {
        name,
        default,
        kind,
        dynamic,
        most,
    }
}

/// The parameters there are; any other is ORA-02065 or ORA-02095.
pub const KNOWN: [Known; 18] = [
    known("aq_tm_processes", "1", 3, true, 40),
    known("archive_lag_target", "0", 3, true, 7200),
    known("cluster_database", "TRUE", 1, false, 0),
    known("compatible", "19.0.0", 2, false, 0),
    known("db_block_size", "8192", 3, false, 0),
    known("db_domain", "", 2, false, 0),
    known("db_name", "", 2, false, 0),
    known("db_unique_name", "", 2, false, 0),
    known("instance_name", "", 2, false, 0),
    known("instance_number", "1", 3, false, 0),
    known("job_queue_processes", "20", 3, true, 4000),
    known("local_listener", "", 2, true, 0),
    known(
        "log_archive_dest_1",
        "LOCATION=USE_DB_RECOVERY_FILE_DEST",
        2,
        true,
        0,
    ),
    known("open_cursors", "300", 3, true, 65535),
    known("processes", "500", 3, false, 0),
    known("service_names", "", 2, true, 0),
    known("spfile", "+DATA/ORCL/spfileORCL.ora", 2, false, 0),
    known("undo_retention", "900", 3, true, i64::MAX),
];

/// A value in an instance's memory.
#[derive(Debug, Clone)]
pub struct InMemory {
    pub value: String,
    /// ISDEFAULT: nothing set it at start-up.
    pub is_default: bool,
    /// ISMODIFIED is SYSTEM_MOD: ALTER SYSTEM changed it since.
    pub modified: bool,
}

/// The parameters of the database.
#[derive(Debug)]
pub struct Parameters {
    /// Per instance, number 1 first.
    pub memory: Vec<BTreeMap<&'static str, InMemory>>,
    /// Per SID (`*` for all): name and value.
    pub spfile: BTreeMap<String, BTreeMap<&'static str, String>>,
    names: Vec<String>,
}

impl Parameters {
    /// The parameters at start-up.
    pub fn new(database: &str, instances: &[Instance]) -> Self {
        let mut all = BTreeMap::new();
        all.insert("job_queue_processes", "20".to_owned());
        all.insert("db_name", database.to_owned());
        let mut memory = Vec::new();
        for (at, instance) in instances.iter().enumerate() {
            let mut own = BTreeMap::new();
            for known in &KNOWN {
                let value = match known.name {
                    "db_name" | "db_unique_name" | "service_names" => database.to_owned(),
                    "instance_name" => instance.name.clone(),
                    "instance_number" => (at + 1).to_string(),
                    "spfile" if !instance.spfile => String::new(),
                    "cluster_database" => (instances.len() > 1).to_string().to_uppercase(),
                    _ => known.default.to_owned(),
                };
                let is_default = !all.contains_key(known.name);
                own.insert(
                    known.name,
                    InMemory {
                        value,
                        is_default,
                        modified: false,
                    },
                );
            }
            memory.push(own);
        }
        let names = instances
            .iter()
            .map(|instance| instance.name.to_uppercase())
            .collect();
        Self {
            memory,
            spfile: BTreeMap::from([("*".to_owned(), all)]),
            names,
        }
    }

    /// An integer parameter's value on an instance.
    pub fn integer(&self, inst: u32, name: &str) -> i64 {
        self.memory[inst as usize - 1]
            .get(name)
            .and_then(|own| own.value.parse().ok())
            .unwrap_or(0)
    }

    fn find(name: &str) -> Result<&'static Known, OraError> {
        let lower = name.to_lowercase();
        KNOWN
            .iter()
            .find(|known| known.name == lower)
            .ok_or_else(|| ora(2065, "illegal option for ALTER SYSTEM"))
    }

    /// The instances that a SID clause means; ORA-32001-like for unknown ones.
    fn instances(&self, sid: &str) -> Result<Vec<usize>, OraError> {
        if sid == "*" {
            return Ok((0..self.memory.len()).collect());
        }
        match self.names.iter().position(|name| name == sid) {
            Some(at) => Ok(vec![at]),
            None => Err(ora(
                32009,
                format!(
                    "cannot reset or set the memory value for instance {sid} from this instance"
                ),
            )),
        }
    }

    /// ALTER SYSTEM SET.
    ///
    /// # Errors
    /// ORA-02065 unknown, ORA-02095 not dynamic, ORA-02097 with ORA-00068
    /// for a value out of range.
    pub fn set(
        &mut self,
        name: &str,
        value: &str,
        reach: Reach,
        sid: &str,
    ) -> Result<(), OraError> {
        let known = Self::find(name)?;
        if reach != Reach::Spfile && !known.dynamic {
            return Err(ora(
                2095,
                "specified initialization parameter cannot be modified",
            ));
        }
        if known.kind == 3 {
            let number: i64 = value.parse().map_err(|_| {
                let text = "parameter cannot be modified because specified value is invalid";
                ora(2097, format!("{text}\nORA-02017: integer value required"))
            })?;
            if !(0..=known.most.max(1)).contains(&number) {
                let text = "parameter cannot be modified because specified value is invalid";
                return Err(ora(
                    2097,
                    format!(
                        "{text}\nORA-00068: invalid value {number} for parameter {}, must be between 0 and {}",
                        known.name, known.most
                    ),
                ));
            }
        }
        let instances = self.instances(sid)?;
        if reach != Reach::Memory {
            let file = self.spfile.entry(sid.to_owned()).or_default();
            file.insert(known.name, value.to_owned());
        }
        if reach != Reach::Spfile {
            for at in instances {
                if let Some(own) = self.memory[at].get_mut(known.name) {
                    own.value = value.to_owned();
                    own.modified = true;
                }
            }
        }
        Ok(())
    }

    /// ALTER SYSTEM RESET on an instance: the spfile entry goes, memory takes
    /// the default.
    ///
    /// # Errors
    /// ORA-32010 where the spfile has no such entry; ORA-32009 where SID names
    /// another instance and its memory is meant.
    pub fn reset(&mut self, name: &str, reach: Reach, sid: &str, own: u32) -> Result<(), OraError> {
        let known = Self::find(name)?;
        let instances = self.instances(sid)?;
        let here = own as usize - 1;
        if reach != Reach::Spfile && sid != "*" && instances != [here] {
            return Err(ora(
                32009,
                format!(
                    "cannot reset the memory value for instance {sid} from instance {}",
                    self.names[here]
                ),
            ));
        }
        if reach != Reach::Memory {
            let removed = self
                .spfile
                .get_mut(sid)
                .and_then(|file| file.remove(known.name));
            if removed.is_none() && reach == Reach::Spfile {
                return Err(ora(32010, "cannot find entry to delete in SPFILE"));
            }
        }
        if reach != Reach::Spfile {
            if !known.dynamic {
                return Err(ora(
                    2095,
                    "specified initialization parameter cannot be modified",
                ));
            }
            for at in instances {
                if let Some(own) = self.memory[at].get_mut(known.name) {
                    known.default.clone_into(&mut own.value);
                    own.modified = true;
                }
            }
        }
        Ok(())
    }

    /// The memory values that are not the default, per instance.
    pub fn observe_memory(&self) -> Value {
        let mut out = serde_json::Map::new();
        for (at, own) in self.memory.iter().enumerate() {
            let values: BTreeMap<&str, &str> = own
                .iter()
                .map(|(name, own)| (*name, own.value.as_str()))
                .collect();
            out.insert((at + 1).to_string(), json!(values));
        }
        Value::Object(out)
    }

    /// The server parameter file.
    pub fn observe_spfile(&self) -> Value {
        json!(self.spfile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_spfile_are_separate() {
        let mut parameters = Parameters::new("ORCL", &[]);
        parameters.memory.push(
            KNOWN
                .iter()
                .map(|k| {
                    let value = k.default.to_owned();
                    (
                        k.name,
                        InMemory {
                            value,
                            is_default: true,
                            modified: false,
                        },
                    )
                })
                .collect(),
        );
        parameters
            .set("JOB_QUEUE_PROCESSES", "0", Reach::Memory, "*")
            .unwrap();
        assert_eq!(parameters.integer(1, "job_queue_processes"), 0);
        assert_eq!(parameters.spfile["*"]["job_queue_processes"], "20");
        assert_eq!(
            parameters
                .set("processes", "9", Reach::Both, "*")
                .unwrap_err()
                .code,
            2095
        );
        assert_eq!(
            parameters
                .set("aq_tm_processes", "99", Reach::Both, "*")
                .unwrap_err()
                .code,
            2097
        );
        assert_eq!(
            parameters
                .reset("aq_tm_processes", Reach::Spfile, "*", 1)
                .unwrap_err()
                .code,
            32010
        );
    }
}
