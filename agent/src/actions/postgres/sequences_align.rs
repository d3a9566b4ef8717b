//! `postgres.sequences.align`: sets sequences and identities past their data.
//!
//! DMS replicates rows, not the values of sequences. Each sequence is set
//! beyond the last value of Oracle's sequence and the values in its columns,
//! plus a margin. Those that the plan doesn't name are set by their columns
//! alone: which of Oracle's sequences fed them isn't guessed. None is moved
//! back, so there is nothing to undo: a gap does no harm.

use super::sequence_column::FedColumn;
use super::sequences::{Sequences, column, find};
use super::{Table, listed, require_schemas};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, satisfied_if, with_before_image,
};
use crate::host::postgres::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::PostgresSequences;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub struct Align;

/// For reading columns before their targets are known. A preflight allows a
/// task 30 s in all.
const PREVIEW_LIMIT: Duration = Duration::from_secs(10);

/// The current state of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SequenceState {
    last_value: i128,
    is_called: bool,
    start: i128,
    increment: i128,
    min: i128,
    max: i128,
    cycle: bool,
}

impl SequenceState {
    /// The last value given out, or the one before the first.
    fn given(&self) -> i128 {
        if self.is_called {
            self.last_value
        } else {
            self.last_value - self.increment
        }
    }

    /// The value to set, or nothing where it is far enough already. Values
    /// stay in the sequence's own stride, for two sequences may share one
    /// number range (odd and even).
    ///
    /// A cycling sequence goes by Oracle's position alone where there is one:
    /// once it has wrapped, the greatest value says nothing.
    fn target(
        &self,
        oracle: Option<i128>,
        column: Option<i128>,
        margin: u64,
    ) -> Result<Option<i128>, i128> {
        let seen = match (oracle, column) {
            (Some(oracle), _) if self.cycle => oracle,
            (Some(oracle), Some(column)) => self.farther(oracle, column),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return Ok(None),
        };
        // Counted in steps away from the start, up and down are the same.
        let way = self.increment.signum();
        let distance = (seen - self.start) * way + i128::from(margin);
        let stride = self.increment.abs().max(1);
        let steps = distance.max(0).div_euclid(stride) + i128::from(distance.max(0) % stride != 0);
        let value = self.start + steps * self.increment;
        // The next value must exist as well: it is the first to be given out.
        if !self.cycle && !(self.min..=self.max).contains(&(value + self.increment)) {
            return Err(value);
        }
        let value = value.clamp(self.min, self.max);
        let behind = value != self.given() && self.farther(value, self.given()) == value;
        Ok(behind.then_some(value))
    }

    fn farther(&self, a: i128, b: i128) -> i128 {
        if self.increment > 0 {
            a.max(b)
        } else {
            a.min(b)
        }
    }
}

/// The values that a sequence must be set beyond.
#[derive(Default)]
struct Known {
    /// Oracle's LAST_NUMBER of each sequence that fed it there.
    oracle: Vec<i128>,
    columns: BTreeSet<(Table, String)>,
}

/// A sequence, and the value to set.
struct Aligned {
    /// For SQL, quoted where needed.
    sequence: String,
    columns: Vec<String>,
    state: SequenceState,
    target: Option<i128>,
}

impl Aligned {
    /// Computes the target of one sequence.
    async fn of(
        session: &Session,
        sequence: String,
        known: Known,
        margin: u64,
    ) -> Result<Self, ActionError> {
        let mut columns = Vec::with_capacity(known.columns.len());
        for (table, column) in known.columns {
            columns.push(FedColumn::of(session, table, column).await?);
        }
        Self::past(session, sequence, known.oracle, columns, margin).await
    }

    async fn past(
        session: &Session,
        sequence: String,
        oracle: Vec<i128>,
        columns: Vec<FedColumn>,
        margin: u64,
    ) -> Result<Self, ActionError> {
        let state = state(session, &sequence).await?;
        let farthest = |a: Option<i128>, b: i128| Some(a.map_or(b, |a| state.farther(a, b)));
        let last = oracle.into_iter().fold(None, farthest);
        let mut held = None;
        for column in &columns {
            if let Some(extreme) = column.extreme(session, state.increment > 0).await? {
                held = farthest(held, extreme);
            }
        }
        let target = state
            .target(last, held, margin)
            .map_err(|value| beyond(&sequence, value, "its bounds"))?;
        // A sequence may count further than its columns do: the first value to
        // be given out must fit into each.
        let given = target.unwrap_or_else(|| state.given());
        let next = if state.cycle {
            given
        } else {
            given + state.increment
        };
        if let Some(narrow) = columns.iter().find(|column| !column.holds(next)) {
            let bounds = format!("what {} can hold", narrow.typed_place());
            return Err(beyond(&sequence, given, &bounds));
        }
        Ok(Self {
            sequence,
            columns: columns.iter().map(FedColumn::place).collect(),
            state,
            target,
        })
    }

    fn statement(&self) -> Option<String> {
        self.target
            .map(|value| format!("setval('{}', {value}, true)", self.sequence))
    }
}

fn beyond(sequence: &str, value: i128, bounds: &str) -> ActionError {
    let what = format!("{sequence} would go to {value}, beyond {bounds}");
    ActionError::new(Code::LS2331, what)
        .state_left("no sequence was moved by this step")
        .remedy(
            "widen it with ALTER SEQUENCE, and its column with ALTER COLUMN … TYPE, or lessen \
             the margin, then retry",
        )
}

/// The sequences to set, and those whose target is unknown. `oracle` is
/// `None` before the run, which alone knows Oracle's numbers.
async fn known(
    session: &Session,
    params: &PostgresSequences,
    oracle: Option<&Value>,
) -> Result<(BTreeMap<String, Known>, Vec<String>), ActionError> {
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    for wanted in &params.sequences {
        let sequence = find(session, &wanted.column).await?;
        let (table, column) = column(&wanted.column)?;
        let known = known.entry(sequence).or_default();
        known.columns.insert((table, column.to_owned()));
        if let (Some(name), Some(oracle)) = (&wanted.oracle, oracle) {
            known.oracle.push(last_number(oracle, name)?);
        }
    }
    let named = known.keys().cloned().collect();
    require_schemas(session, &params.schemas).await?;
    let sequences = Sequences::of(session, &params.schemas).await?;
    let left_alone = sequences.left_alone(&named);
    for feed in sequences.feeds.into_iter().filter(|feed| feed.plain) {
        let known = known.entry(feed.sequence).or_default();
        known.columns.insert((feed.table, feed.column));
    }
    Ok((known, left_alone))
}

/// All targets, before any sequence is moved; and the sequences whose target is
/// unknown.
async fn look(
    session: &Session,
    params: &PostgresSequences,
) -> Result<(Vec<Aligned>, Vec<String>), ActionError> {
    let (known, left_alone) = known(session, params, Some(&params.oracle)).await?;
    let mut all = Vec::with_capacity(known.len());
    for (sequence, known) in known {
        all.push(Aligned::of(session, sequence, known, params.margin).await?);
    }
    Ok((all, left_alone))
}

/// Finds days before the run what would stop it: values that are no numbers,
/// and bounds that the data alone exceeds. Columns that take long to read
/// are left out, with a remark.
async fn preview(
    session: &Session,
    params: &PostgresSequences,
    description: &mut Description,
) -> Result<(), ActionError> {
    let began = Instant::now();
    let (known, _) = known(session, params, None).await?;
    let mut unread = Vec::new();
    for (sequence, known) in known {
        let mut columns = Vec::with_capacity(known.columns.len());
        for (table, column) in known.columns {
            let column = FedColumn::of(session, table, column).await?;
            if column.is_quick() && began.elapsed() < PREVIEW_LIMIT {
                columns.push(column);
            } else {
                unread.push(column.place());
            }
        }
        let aligned = Aligned::past(session, sequence, Vec::new(), columns, params.margin).await;
        description.obstacle(aligned);
    }
    if !unread.is_empty() {
        description.remarks.push(format!(
            "not read before the run, for it takes long without an index: {}; whether all their \
             values are numbers and the next ones fit shows only in the run",
            listed(&unread)
        ));
    }
    Ok(())
}

/// Oracle's LAST_NUMBER, a number or the text of one (it has up to 28 digits).
fn last_number(oracle: &Value, name: &str) -> Result<i128, ActionError> {
    let value = oracle.get(name).map(|one| &one["last_number"]);
    let number = match value {
        Some(Value::String(text)) => text.parse().ok(),
        Some(other) => other.as_i64().map(i128::from),
        None => None,
    };
    number.ok_or_else(|| {
        ActionError::new(
            Code::LS2332,
            format!("oracle.finalize says nothing of {name}"),
        )
        .state_left("no sequence was moved by this step")
        .remedy("name its owner under oracle.schemas in the plan, or correct the name")
    })
}

async fn state(session: &Session, sequence: &str) -> Result<SequenceState, ActionError> {
    let sql = format!(
        "SELECT s.last_value, s.is_called, q.seqstart, q.seqincrement, q.seqmin, q.seqmax, \
         q.seqcycle FROM {sequence} s, pg_sequence q WHERE q.seqrelid = $1::text::regclass"
    );
    let row = session.row(&sql, &[&sequence]).await?;
    let number = |index: usize| i128::from(row.get::<_, i64>(index));
    Ok(SequenceState {
        last_value: number(0),
        is_called: row.get(1),
        start: number(2),
        increment: number(3),
        min: number(4),
        max: number(5),
        cycle: row.get(6),
    })
}

/// The sequence that feeds a column, if the agent's role may set it.
async fn settable(session: &Session, place: &str) -> Result<String, ActionError> {
    let sequence = find(session, place).await?;
    let sql = "SELECT has_sequence_privilege($1::text::regclass, 'SELECT') \
               AND has_sequence_privilege($1::text::regclass, 'UPDATE')";
    if session.row(sql, &[&sequence]).await?.get(0) {
        return Ok(sequence);
    }
    let what = format!("the agent's role may not set {sequence} of {place}");
    Err(ActionError::new(Code::LS2337, what)
        .state_left("no sequence was moved by this step")
        .remedy("GRANT it the role that owns the sequence, or SELECT, UPDATE on it"))
}

fn remark(left_alone: &[String]) -> Option<String> {
    (!left_alone.is_empty()).then(|| {
        format!(
            "left as they are, for no column holds their values: {}",
            listed(left_alone)
        )
    })
}

#[async_trait]
impl Action for Align {
    type Params = PostgresSequences;

    fn required_permissions(&self, params: &PostgresSequences) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &PostgresSequences) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let (all, _) = look(&session, params).await?;
        let before: BTreeMap<&String, Value> = all
            .iter()
            .map(|one| {
                let value = one.state.last_value.to_string();
                let called = one.state.is_called;
                (
                    &one.sequence,
                    json!({"last_value": value, "is_called": called}),
                )
            })
            .collect();
        let so = all.iter().all(|one| one.target.is_none());
        with_before_image(satisfied_if(so), &before)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &PostgresSequences,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let (all, left_alone) = look(&session, params).await?;
        let mut description = Description::of(all.iter().filter_map(Aligned::statement));
        description.remarks.extend(remark(&left_alone));
        Ok(description)
    }

    /// The targets are known only in the run. Checked is whether each sequence
    /// can be set, and goes past what its columns hold already.
    async fn describe_unresolved(
        &self,
        cx: &Context,
        params: &PostgresSequences,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let mut foreseen = Description::default();
        for wanted in &params.sequences {
            let Some(sequence) = foreseen.obstacle(settable(&session, &wanted.column).await) else {
                continue;
            };
            let oracle = wanted.oracle.as_ref();
            let oracle = oracle.map_or_else(String::new, |name| format!(" and {name}"));
            foreseen.would_do.push(format!(
                "setval('{sequence}', …, true), past {}{oracle}",
                wanted.column
            ));
        }
        if foreseen.obstacles.is_empty() {
            preview(&session, params, &mut foreseen).await?;
        }
        Ok(foreseen)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &PostgresSequences,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        // The greatest value of a column without an index may take minutes; a
        // probe for a vote doesn't wait for it.
        session.without_limit().await?;
        let (all, left_alone) = look(&session, params).await?;
        if let Some(remark) = remark(&left_alone) {
            cx.note(remark);
        }
        for one in all {
            let Some(value) = one.target else {
                continue;
            };
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            session
                .row(
                    "SELECT setval($1::text::regclass, $2, true)",
                    &[&one.sequence, &value],
                )
                .await?;
            cx.effect(format!(
                "{} of {}: {} -> {value}",
                one.sequence,
                listed(&one.columns),
                one.state.last_value
            ));
        }
        Ok(Outputs::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: SequenceState = SequenceState {
        last_value: 1,
        is_called: false,
        start: 1,
        increment: 1,
        min: 1,
        max: 1_000_000,
        cycle: false,
    };

    const DOWN: SequenceState = SequenceState {
        last_value: -1,
        is_called: false,
        start: -1,
        increment: -1,
        min: -1_000_000,
        max: -1,
        cycle: false,
    };

    #[test]
    fn the_farther_of_both_sides_counts() {
        assert_eq!(UP.target(Some(500), Some(700), 100), Ok(Some(800)));
        assert_eq!(UP.target(Some(900), Some(700), 100), Ok(Some(1000)));
        assert_eq!(UP.target(None, Some(7), 0), Ok(Some(7)));
        assert_eq!(UP.target(None, None, 1000), Ok(None));
        assert_eq!(DOWN.target(Some(-500), Some(-700), 100), Ok(Some(-800)));
    }

    #[test]
    fn nothing_moves_back_and_a_second_time_does_nothing() {
        let there = SequenceState {
            last_value: 800,
            is_called: true,
            ..UP
        };
        assert_eq!(there.target(Some(500), Some(700), 100), Ok(None));
        assert_eq!(there.target(Some(500), Some(600), 100), Ok(None));
        // Not called: 800 is still to be given out.
        let next = SequenceState {
            last_value: 800,
            ..UP
        };
        assert_eq!(next.target(None, Some(700), 100), Ok(Some(800)));
    }

    #[test]
    fn a_stride_is_kept() {
        let odd = SequenceState { increment: 2, ..UP };
        assert_eq!(odd.target(None, Some(100), 10), Ok(Some(111)));
        let down = SequenceState {
            increment: -10,
            ..DOWN
        };
        assert_eq!(down.target(None, Some(-15), 0), Ok(Some(-21)));
    }

    #[test]
    fn bounds_are_kept_and_cycles_wrap() {
        let short = SequenceState { max: 100, ..UP };
        assert_eq!(short.target(None, Some(99), 10), Err(109));
        // The last value would be taken, and the next one an error.
        assert_eq!(short.target(None, Some(90), 10), Err(100));
        assert_eq!(short.target(None, Some(89), 10), Ok(Some(99)));
        let round = SequenceState {
            cycle: true,
            ..short
        };
        assert_eq!(round.target(None, Some(99), 10), Ok(Some(100)));
        assert_eq!(round.target(Some(20), Some(99), 10), Ok(Some(30)));
    }

    #[test]
    fn oracles_number_may_be_text() {
        let oracle = json!({"S.A": {"last_number": "21"}, "S.B": {"last_number": 22}});
        assert_eq!(last_number(&oracle, "S.A").unwrap(), 21);
        assert_eq!(last_number(&oracle, "S.B").unwrap(), 22);
        assert_eq!(
            last_number(&oracle, "S.C").unwrap_err().code(),
            Code::LS2332
        );
    }
}
