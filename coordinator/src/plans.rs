//! Plans as operators submit them, and as a run's first record holds them.

use crate::handle::{Answer, RequestError};
use lockstep_api::{Code, Diagnosis};
use lockstep_barrier::ids::{AgentName, Term};
use lockstep_barrier::record::Begin;
use lockstep_plan::{Digest, Plan};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A plan that has been parsed, verified and compared with its digest. Only
/// such a plan reaches the driver, so that its event loop does none of that.
#[derive(Debug, Clone)]
pub struct CheckedPlan {
    plan: Arc<Plan>,
    digest: Digest,
    /// The text it was made from, for the record.
    source: Arc<str>,
}

impl CheckedPlan {
    /// Checks a submitted plan: the coordinator relies on no check but its own.
    /// `digest` is the one that the operator saw.
    ///
    /// # Errors
    /// LS4310, LS4311 or LS4312.
    pub fn check(plan_json: &str, digest: &str, source: &str) -> Answer<Self> {
        let plan = Plan::from_json(plan_json).map_err(|e| {
            let diagnosis = Diagnosis::new(Code::LS4310, "this is not an expanded plan");
            RequestError::invalid(diagnosis.source(&e))
        })?;
        let faults: Vec<String> = lockstep_plan::check::verify(&plan)
            .into_iter()
            .filter(|fault| !fault.warning)
            .map(|fault| format!("{} {}; {}", fault.code, fault.message, fault.remedy))
            .collect();
        if !faults.is_empty() {
            let what = format!("the plan is invalid: {}", faults.join("; "));
            return Err(RequestError::invalid(Diagnosis::new(Code::LS4311, what)));
        }
        let checked = Self::trusted(plan, source);
        if checked.digest.to_string() != digest {
            let what = format!(
                "the plan's digest is {}, not {digest} as approved",
                checked.digest
            );
            let diagnosis = Diagnosis::new(Code::LS4312, what).remedy("check the file again");
            return Err(RequestError::invalid(diagnosis));
        }
        Ok(checked)
    }

    pub(crate) fn trusted(plan: Plan, source: &str) -> Self {
        Self {
            digest: plan.digest(),
            plan: Arc::new(plan),
            source: source.into(),
        }
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    pub fn source(&self) -> &str {
        &self.source
    }
}

/// What the coordinator stores with a run: [`Begin::rest`], which the barrier
/// doesn't interpret.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunDocument<'a> {
    pub plan: Cow<'a, Plan>,
    pub source: Cow<'a, str>,
    /// Id of the request that started the run; empty if it had none.
    pub request: Cow<'a, str>,
    /// Terms of other coordinators that members had accepted before the run
    /// began; these are no evidence that another coordinator leads it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub foreign_terms: BTreeMap<AgentName, Term>,
}

impl RunDocument<'_> {
    /// # Errors
    /// If the plan has no JSON form.
    pub fn write(
        plan: &CheckedPlan,
        request: &str,
        foreign_terms: BTreeMap<AgentName, Term>,
    ) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(RunDocument {
            plan: Cow::Borrowed(&plan.plan),
            source: plan.source().into(),
            request: request.into(),
            foreign_terms,
        })
    }

    /// The term of another coordinator that a member had accepted before the
    /// run began.
    pub fn foreign_term_at_start(begin: &Begin, agent: &AgentName) -> Option<Term> {
        let term = begin.rest.get("foreign_terms")?.get(&agent.0)?;
        Term::deserialize(term).ok()
    }

    /// # Errors
    /// If the record was not written by [`RunDocument::write`].
    pub fn read(begin: &Begin) -> Result<RunDocument<'static>, serde_json::Error> {
        RunDocument::deserialize(&begin.rest)
    }
}
