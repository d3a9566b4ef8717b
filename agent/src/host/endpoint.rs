//! Endpoints of AWS DMS: the settings that matter to a cutover.
//!
//! Each setting has two forms: a member of the engine's settings
//! (`PostgreSQLSettings.SlotName`), and an older extra connection attribute
//! (`slotName=…`). DMS obeys both, and `DescribeEndpoints` returns each as it was
//! given, so both are read. Where they disagree, the reading that is worse for
//! the cutover counts: which of them DMS prefers isn't documented.
//!
//! Source: AWS DMS API reference, `PostgreSQLSettings`, `OracleSettings`; user
//! guide, "Extra connection attributes" of PostgreSQL and of Oracle as a source.

use aws_sdk_databasemigration::types::Endpoint as Described;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `EndpointIdentifier`.
    pub identifier: String,
    /// `SlotName`, `slotName`: a slot of PostgreSQL that the customer made.
    pub slot: Option<String>,
    /// PostgreSQL: `CaptureDdls`, `captureDDLs`. DMS captures DDL unless the
    /// endpoint says no.
    pub captures_ddl: bool,
    /// Its sessions set `session_replication_role`.
    pub sets_replication_role: bool,
    /// Oracle: how changes are read.
    pub log_reader: LogReader,
    /// Oracle: the extra attribute `escapeCharacter`, which makes a wildcard in
    /// table mappings an ordinary character. It has no other form.
    pub escape: Option<char>,
}

/// `UseLogminerReader`, `useLogMinerReader`; LogMiner by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogReader {
    LogMiner,
    /// With `UseBFile`, `useBfile`, or not.
    BinaryReader {
        bfile: bool,
    },
}

impl LogReader {
    /// What it doesn't capture.
    ///
    /// Source: AWS DMS user guide, "Using Oracle LogMiner or AWS DMS Binary
    /// Reader for CDC" and "Limitations on using Oracle as a source".
    pub fn limits(self) -> String {
        match self {
            Self::LogMiner => "its source endpoint reads the redo with LogMiner, which captures \
                no XA transactions, no UPDATE of LOB columns alone, in Oracle 12c no changes of \
                LOBs at all, and nothing of a pluggable database: such changes are missing in \
                PostgreSQL while row counts agree"
                .to_owned(),
            Self::BinaryReader { bfile } => format!(
                "its source endpoint reads the redo with Binary Reader (useBfile={}), which \
                 captures no tables in clusters and not every compression (none of HCC QUERY LOW): \
                 such changes are missing in PostgreSQL",
                if bfile { 'Y' } else { 'N' }
            ),
        }
    }
}

impl Endpoint {
    pub fn of(found: &Described) -> Self {
        let extra = attributes(found.extra_connection_attributes().unwrap_or_default());
        let attribute = |name: &str| {
            let mut named = extra.iter().filter(|(key, _)| key == name);
            named.next_back().map(|(_, value)| value.clone())
        };
        let postgres = found.postgre_sql_settings();
        let oracle = found.oracle_settings();
        let present = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
        let script = postgres.and_then(|settings| settings.after_connect_script());
        let scripts = [script.map(str::to_owned), attribute("afterconnectscript")];
        let said = |member: Option<bool>, name: &str| {
            [member, attribute(name).as_deref().and_then(flag)]
                .into_iter()
                .flatten()
                .collect::<Vec<bool>>()
        };
        let ddl = said(postgres.and_then(|s| s.capture_ddls()), "captureddls");
        let miner = said(
            oracle.and_then(|s| s.use_logminer_reader()),
            "uselogminerreader",
        );
        let bfile = said(oracle.and_then(|s| s.use_b_file()), "usebfile");
        Self {
            identifier: found.endpoint_identifier().unwrap_or_default().to_owned(),
            slot: present(postgres.and_then(|s| s.slot_name()).map(str::to_owned))
                .or_else(|| present(attribute("slotname"))),
            captures_ddl: ddl.is_empty() || ddl.contains(&true),
            sets_replication_role: scripts
                .iter()
                .flatten()
                .any(|text| text.to_lowercase().contains("session_replication_role")),
            log_reader: if miner.is_empty() || miner.contains(&true) {
                LogReader::LogMiner
            } else {
                LogReader::BinaryReader {
                    bfile: bfile.contains(&true),
                }
            },
            escape: attribute("escapecharacter").and_then(|text| text.chars().next()),
        }
    }
}

/// The pairs of `name=value;name=value`: names in lower case, values without the
/// quotes around them. A semicolon in quotes doesn't separate, unless the quotes
/// don't close: then an apostrophe was only text.
fn attributes(text: &str) -> Vec<(String, String)> {
    let mut quote = None;
    let quoted: Vec<&str> = text
        .split(|character: char| {
            match (quote, character) {
                (None, '\'' | '"') => quote = Some(character),
                (Some(open), _) if open == character => quote = None,
                _ => {}
            }
            character == ';' && quote.is_none()
        })
        .collect();
    let pieces = if quote.is_none() {
        quoted
    } else {
        text.split(';').collect()
    };
    let pairs = pieces.iter().filter_map(|piece| piece.split_once('='));
    pairs
        .map(|(name, value)| {
            (
                name.trim().to_lowercase(),
                unquoted(value.trim()).to_owned(),
            )
        })
        .collect()
}

fn unquoted(value: &str) -> &str {
    ['\'', '"']
        .iter()
        .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(value)
}

/// Flags are `Y` or `N` in the guide, and `true` or `false` in some attributes.
fn flag(value: &str) -> Option<bool> {
    match value.to_lowercase().as_str() {
        "y" | "yes" | "true" | "1" => Some(true),
        "n" | "no" | "false" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_databasemigration::types::{OracleSettings, PostgreSqlSettings};

    fn endpoint(extra: &str) -> Endpoint {
        let described = Described::builder().extra_connection_attributes(extra);
        Endpoint::of(&described.build())
    }

    #[test]
    fn a_slot_is_found_in_every_spelling() {
        for extra in [
            "slotName=way_back",
            "captureDDLs=N;slotName=way_back;",
            "slotname = 'way_back' ; heartbeatEnable=Y",
            "SLOTNAME=\"way_back\"",
            "afterConnectScript='SET a=1; SET b=2';slotName=way_back",
            "afterConnectScript=SET x TO it's;slotName=way_back",
        ] {
            assert_eq!(endpoint(extra).slot.as_deref(), Some("way_back"), "{extra}");
        }
        for extra in ["", "slotName=", "slotName='';", "myslotName=x"] {
            assert_eq!(endpoint(extra).slot, None, "{extra}");
        }
    }

    #[test]
    fn ddl_is_captured_unless_both_forms_allow_the_opposite() {
        let of = |member: Option<bool>, extra: &str| {
            let settings = PostgreSqlSettings::builder().set_capture_ddls(member);
            let described = Described::builder()
                .postgre_sql_settings(settings.build())
                .extra_connection_attributes(extra);
            Endpoint::of(&described.build()).captures_ddl
        };
        assert!(of(None, ""));
        assert!(of(None, "captureDDLs=Y"));
        assert!(of(Some(true), "captureDDLs=N"));
        assert!(of(Some(false), "captureDDLs=Y"));
        assert!(of(None, "captureDDLs=maybe"));
        assert!(!of(Some(false), ""));
        assert!(!of(None, "PluginName=test_decoding; captureddls = n ;"));
        assert!(!of(Some(false), "captureDDLs='false'"));
    }

    #[test]
    fn the_reader_of_the_redo_is_named_with_its_limits() {
        let of = |member: Option<bool>, extra: &str| {
            let settings = OracleSettings::builder().set_use_logminer_reader(member);
            let described = Described::builder()
                .oracle_settings(settings.build())
                .extra_connection_attributes(extra);
            Endpoint::of(&described.build()).log_reader
        };
        assert_eq!(of(None, ""), LogReader::LogMiner);
        assert_eq!(of(Some(true), "useLogMinerReader=N"), LogReader::LogMiner);
        assert_eq!(
            of(None, "useLogMinerReader=N;useBfile=Y;asm_user=a"),
            LogReader::BinaryReader { bfile: true }
        );
        assert_eq!(
            of(Some(false), ""),
            LogReader::BinaryReader { bfile: false }
        );
        assert!(LogReader::LogMiner.limits().contains("XA"));
    }

    #[test]
    fn scripts_and_escapes_are_read() {
        let replica = "afterConnectScript=SET session_replication_role='replica'";
        assert!(endpoint(replica).sets_replication_role);
        assert!(!endpoint("executeTimeout=90").sets_replication_role);
        assert_eq!(endpoint("useBfile=Y;escapeCharacter=#").escape, Some('#'));
        assert_eq!(endpoint("escapeCharacter=';'").escape, Some(';'));
        assert_eq!(endpoint("escapeCharacter=").escape, None);
    }
}
