//! What a column that a sequence feeds holds, and what it can hold.
//!
//! A load maps types freely, so such a column may be text or a float. Its
//! values are compared as numbers, and what can't be read as one is an error:
//! a column taken for empty would let the sequence give out values in use.

use super::Table;
use crate::action::ActionError;
use crate::host::postgres::{Session, quoted};
use lockstep_api::Code;
use std::ops::RangeInclusive;

/// Farther than any sequence of PostgreSQL (8 bytes) or Oracle (28 digits)
/// reaches; computing with such numbers doesn't overflow.
const UNREACHABLE: i128 = 10_i128.pow(30);

/// Bytes of a table that are read within about a second, without an index.
const QUICKLY_READ: i64 = 64 << 20;

/// How the values of a column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Exact numbers, in numeric order.
    Exact,
    /// `numeric` has at most 15 digits of a float (PostgreSQL's cast rounds),
    /// so floats are read as such.
    Float,
    /// Text is ordered by its collation, so each value is cast.
    Text,
}

/// A column that a sequence feeds.
pub struct FedColumn {
    table: Table,
    name: String,
    /// Its type, as SQL spells it.
    kind: String,
    reading: Option<Reading>,
    range: Option<RangeInclusive<i128>>,
    quick: bool,
}

/// The type below domains; whether an index leads with the column; the size
/// with partitions.
const COLUMN: &str = "WITH RECURSIVE base(oid, typmod, num) AS ( \
      SELECT a.atttypid, a.atttypmod, a.attnum FROM pg_attribute a \
      WHERE a.attrelid = $1::text::regclass AND a.attname = $2 \
        AND a.attnum > 0 AND NOT a.attisdropped \
      UNION ALL SELECT t.typbasetype, t.typtypmod, b.num \
      FROM base b JOIN pg_type t ON t.oid = b.oid WHERE t.typtype = 'd') \
    SELECT format_type(b.oid, b.typmod), t.typname::text, b.typmod, \
      EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
        JOIN pg_am m ON m.oid = c.relam WHERE i.indrelid = $1::text::regclass \
        AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = b.num AND m.amname = 'btree'), \
      (pg_relation_size($1::text::regclass) + coalesce((SELECT sum(pg_relation_size(p.relid)) \
        FROM pg_partition_tree($1::text::regclass) p), 0))::bigint \
    FROM base b JOIN pg_type t ON t.oid = b.oid WHERE t.typtype <> 'd'";

impl FedColumn {
    /// Reads the system catalog.
    pub async fn of(session: &Session, table: Table, name: String) -> Result<Self, ActionError> {
        let rows = session.rows(COLUMN, &[&table.sql(), &name]).await?;
        let row = rows.first().ok_or_else(|| {
            ActionError::new(Code::LS2333, format!("{table} has no column {name}"))
                .state_left("no sequence was moved by this step")
                .remedy("correct its name in the plan")
        })?;
        let (base, modifier): (String, i32) = (row.get(1), row.get(2));
        let reading = reading(&base);
        let (indexed, size): (bool, i64) = (row.get(3), row.get(4));
        Ok(Self {
            table,
            name,
            kind: row.get(0),
            reading,
            range: range(&base, modifier),
            quick: size <= QUICKLY_READ || indexed && reading == Some(Reading::Exact),
        })
    }

    /// `schema.table.column`.
    pub fn place(&self) -> String {
        format!("{}.{}", self.table, self.name)
    }

    /// `schema.table.column (type)`.
    pub fn typed_place(&self) -> String {
        format!("{} ({})", self.place(), self.kind)
    }

    /// Whether its greatest value is found in a moment.
    pub fn is_quick(&self) -> bool {
        self.quick || self.reading.is_none()
    }

    /// Whether its type can hold a value.
    pub fn holds(&self, value: i128) -> bool {
        self.range
            .as_ref()
            .is_none_or(|range| range.contains(&value))
    }

    /// The greatest value, rounded up; the least, rounded down, where the
    /// sequence descends. `None` only where the column holds none.
    ///
    /// # Errors
    /// LS2338 where it can't be known.
    pub async fn extreme(
        &self,
        session: &Session,
        ascending: bool,
    ) -> Result<Option<i128>, ActionError> {
        let reading = self.reading.ok_or_else(|| {
            self.unreadable(format!("{} is no column of numbers", self.typed_place()))
        })?;
        let (function, round) = if ascending {
            ("max", "ceil")
        } else {
            ("min", "floor")
        };
        let (column, table) = (quoted(&self.name), self.table.sql());
        // NaN and infinity are greater than every number, so `max` finds them.
        let sql = match reading {
            Reading::Exact => format!(
                "SELECT {round}({function}({column})::text::numeric)::text, 0::bigint FROM {table}"
            ),
            Reading::Float => {
                format!("SELECT {function}({column})::float8::text, 0::bigint FROM {table}")
            }
            Reading::Text => format!(
                "SELECT {round}({function}(CASE WHEN {column}::text ~ {NUMBER} \
                 THEN {column}::text::numeric END))::text, \
                 count(*) FILTER (WHERE {column}::text !~ {NUMBER}) FROM {table}"
            ),
        };
        let row = session.row(&sql, &[]).await?;
        let (text, odd): (Option<String>, i64) = (row.get(0), row.get(1));
        if odd > 0 {
            return Err(self.unreadable(format!(
                "{odd} values of {} can't be read as numbers",
                self.typed_place()
            )));
        }
        let Some(text) = text else {
            return Ok(None);
        };
        let value = number(reading, &text, ascending);
        value.map(Some).ok_or_else(|| {
            self.unreadable(format!(
                "{} holds NaN, an infinity, or a number that no sequence reaches",
                self.typed_place()
            ))
        })
    }

    fn unreadable(&self, what: String) -> ActionError {
        ActionError::new(Code::LS2338, what)
            .state_left("no sequence was moved by this step")
            .remedy(
                "correct these values, or detach the sequence from the column (ALTER COLUMN … \
                 DROP DEFAULT, ALTER SEQUENCE … OWNED BY NONE) and set it by hand",
            )
    }
}

/// The text of a number; no exponents, which `nextval` doesn't write.
const NUMBER: &str = "'^ *[+-]?[0-9]+([.][0-9]*)? *$'";

fn reading(base: &str) -> Option<Reading> {
    match base {
        "int2" | "int4" | "int8" | "numeric" | "oid" => Some(Reading::Exact),
        "float4" | "float8" => Some(Reading::Float),
        "text" | "varchar" | "bpchar" => Some(Reading::Text),
        _ => None,
    }
}

/// The whole numbers that a type holds, each distinct from the next (of
/// floats: as many as the mantissa has bits).
fn range(base: &str, modifier: i32) -> Option<RangeInclusive<i128>> {
    let both = |limit: i128| Some(-limit..=limit);
    let digits = |count: i32| 10_i128.pow(count.clamp(0, 30).unsigned_abs()) - 1;
    // Both kinds of modifier carry 4 more (VARHDRSZ, in utils/adt/numeric.c and varchar.c).
    let limited = modifier >= 4;
    let modifier = modifier - 4;
    match base {
        "int2" => Some(i16::MIN.into()..=i16::MAX.into()),
        "int4" => Some(i32::MIN.into()..=i32::MAX.into()),
        "int8" => Some(i64::MIN.into()..=i64::MAX.into()),
        "oid" => Some(0..=u32::MAX.into()),
        "float4" => both(1 << 24),
        "float8" => both(1 << 53),
        "numeric" if limited => {
            // A negative scale, from PostgreSQL 15 on, is 11 bits in two's complement.
            let scale = ((modifier & 0x7ff) ^ 0x400) - 0x400;
            both(digits((modifier >> 16) - scale))
        }
        "varchar" | "bpchar" if limited => Some(-digits(modifier - 1)..=digits(modifier)),
        _ => None,
    }
}

fn number(reading: Reading, text: &str, ascending: bool) -> Option<i128> {
    let value = match reading {
        Reading::Exact | Reading::Text => text.parse().ok()?,
        Reading::Float => {
            let float: f64 = text.parse().ok()?;
            let whole = if ascending {
                float.ceil()
            } else {
                float.floor()
            };
            if !whole.is_finite() {
                return None;
            }
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the cast saturates, far beyond what is reachable"
            )]
            let whole = whole as i128;
            whole
        }
    };
    (-UNREACHABLE..=UNREACHABLE)
        .contains(&value)
        .then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_bound_what_a_column_holds() {
        for (base, modifier, greatest) in [
            ("int2", -1, 32_767),
            ("float4", -1, 16_777_216),
            // numeric(4), numeric(6,2), numeric(2,-3)
            ("numeric", (4 << 16) + 4, 9_999),
            ("numeric", ((6 << 16) | 2) + 4, 9_999),
            ("numeric", ((2 << 16) | (-3 & 0x7ff)) + 4, 99_999),
            ("varchar", 4 + 4, 9_999),
        ] {
            let range = range(base, modifier).unwrap();
            assert_eq!(*range.end(), greatest, "{base} {modifier}");
        }
        assert_eq!(range("numeric", -1), None);
        assert_eq!(range("text", -1), None);
        assert_eq!(*range("bpchar", 8).unwrap().start(), -999);
    }

    #[test]
    fn what_is_no_number_is_never_read_as_one() {
        assert_eq!(number(Reading::Exact, "NaN", true), None);
        assert_eq!(number(Reading::Exact, &"9".repeat(31), true), None);
        assert_eq!(number(Reading::Float, "NaN", true), None);
        assert_eq!(number(Reading::Float, "Infinity", true), None);
        assert_eq!(number(Reading::Float, "1e300", true), None);
        assert_eq!(number(Reading::Float, "1.5", true), Some(2));
        assert_eq!(number(Reading::Float, "-1.5", false), Some(-2));
    }
}
