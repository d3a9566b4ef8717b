//! Recovery once the faults have stopped.

use super::failed;
use crate::support::Sim;
use proptest::test_runner::TestCaseError;

/// Every run ends once the faults have stopped and operators respond.
pub(super) fn heal(sim: &mut Sim, turns_back: bool) -> Result<(), TestCaseError> {
    sim.heal(turns_back).map_err(|what| failed(sim, &what))
}
