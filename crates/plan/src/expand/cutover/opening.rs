//! The phases from the last checks before the point of no return: PostgreSQL is
//! opened, and Oracle stays closed.

use super::super::step;
use super::forward::{COMPARE, SEQUENCES, last_finalize};
use super::params::{canary, exempt, fence, roles};
use super::{Draft, LEAD, OPENING, ORACLE, POSTGRES, applications};
use crate::catalogue as c;
use crate::model::Step;

/// Steps whose state must still be in effect when PostgreSQL is opened. The fence's
/// watch attests the others.
const RELIED_ON: [&str; 6] = [
    "postgres-jobs-disable",
    "forward-stop",
    "oracle-triggers-disable",
    "reverse-start",
    "postgres-triggers-enable",
    "sequences",
];

/// Checks of the states on which the opening relies. Whatever an earlier phase has
/// reached may have been changed since, or was only said to be reached.
fn relied_on(draft: &Draft<'_>) -> Vec<Step> {
    RELIED_ON
        .iter()
        .filter_map(|id| draft.step(id))
        .map(|reached| {
            let check = c::CheckState {
                action: reached.action.clone(),
                params: reached.params.clone(),
            };
            step(format!("{}-still", reached.id), &reached.party, &check)
                .proof()
                .with_timeout(reached.timeout_ms.min(SEQUENCES.ms()))
        })
        .collect()
}

/// Checks after the gate, however long that took, that Oracle has no commit
/// beyond the proved SCN: the forward task is stopped, so PostgreSQL would lack
/// it. The fence doesn't exclude SYS. Checks as well that the states on which the
/// opening relies are in effect. This is a phase of its own before the point of no
/// return, so that a change is answered by a rollback.
///
/// Then only the roles are opened. Jobs are restored in a phase of their own:
/// none may run before the release that passes the point of no return.
pub(super) fn open_postgres(draft: &mut Draft<'_>) {
    let source = draft.source;
    let oracle = &source.oracle;
    let canary = canary(source, &oracle.canary_table);
    let unchanged = c::OracleUnchanged {
        resource: oracle.resource.clone(),
        scn: format!("${{{}.scn}}", last_finalize(source)),
        schemas: oracle.schemas.clone(),
        except: std::iter::once(oracle.marker_table.clone())
            .chain(canary)
            .collect(),
        expected: "${oracle-rows.tables}".into(),
        exempt: exempt(source),
    };
    let limit = source.compare.timeout.unwrap_or(COMPARE).ms();
    let unchanged = step("oracle-unchanged", LEAD, &unchanged).proof();
    let mut checks = vec![unchanged.with_timeout(limit)];
    checks.extend(relied_on(draft));
    draft.add("open-postgres", "", &["10"], checks);
    // The roles have been closed since `prepare`, but could have been opened by
    // hand. This check affects the vote, so the point of no return is not passed
    // while PostgreSQL accepts writes. It is not marked as a proof: a later
    // breach of the fence must not require it again.
    let closed = step(
        "postgres-roles-verify",
        POSTGRES,
        &c::VerifyRoles(roles(source)),
    );
    let open = step(
        "postgres-roles-open",
        POSTGRES,
        &c::OpenRoles(roles(source)),
    );
    draft.add(
        "open-postgres",
        OPENING,
        &["10"],
        vec![closed.required(), open.required().without_undo()],
    );
    if source.postgres.jobs {
        let jobs = step(
            "postgres-jobs-restore",
            POSTGRES,
            &c::RestorePostgresJobs {
                resource: source.postgres.resource.clone(),
            },
        );
        draft.add("open-postgres", "jobs", &["10"], vec![jobs]);
    }
}

/// Closed ports don't exclude existing sessions in Oracle. The watch ended when
/// the applications started, so it can't void this proof.
pub(super) fn unused(draft: &Draft<'_>) -> Option<Step> {
    let rules = c::VerifyFence(fence(draft.source));
    applications::any_after_open(draft).then(|| step("oracle-unused", LEAD, &rules).proof())
}

pub(super) fn keep_closed(draft: &mut Draft<'_>) {
    let oracle = &draft.source.oracle;
    let keep = c::PersistFreeze {
        resource: oracle.resource.clone(),
        keep: oracle.dms_listener.iter().cloned().collect(),
        jobs: oracle.jobs.disable,
        accounts: oracle.accounts.clone(),
    };
    let step = step("oracle-keep-closed", ORACLE, &keep).without_undo();
    draft.add("keep-closed", "", &[], vec![step]);
}
