//! Size limits of messages, the same for both sides.
//!
//! Senders enforce them before any work is done: a message that its receiver
//! rejects would end the session, be sent again in the next session, and end that
//! session too.

use crate::convert::MAX_SENTENCE;
use lockstep_barrier::message::Changes;

/// Largest message between a coordinator and an agent, and largest request of
/// an operator: as long as an entry of a journal may be, which keeps what
/// messages say.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Largest answer to an operator: the status of a run with ten thousand tasks
/// and their outputs, or a page of its journal.
pub const MAX_ANSWER: usize = 32 << 20;

/// Bytes of JSON of all before-images in one vote: the states of ten thousand
/// triggers take half of it. A report holds one task's before-image and outputs
/// next to each other.
pub const MAX_BEFORE_IMAGES: usize = 1 << 20;

/// Bytes of JSON of one task's outputs: digests or sequences of ten thousand
/// tables.
pub const MAX_OUTPUTS: usize = 1 << 20;

/// Bytes of the sentence that records one change of a host.
pub const MAX_CHANGE: usize = 500;

/// Bytes of all changes of one report, each with its time and framing.
const MAX_CHANGES: usize = Changes::MAX * (MAX_CHANGE + 64);

/// Bytes of the reasons of one refusal, all tasks together.
pub const MAX_REFUSAL: usize = 64 * MAX_SENTENCE;

/// Bytes of all texts of a preflight report. The rest of a message is reserved for
/// the fixed fields of each task.
pub const MAX_REPORT: usize = 2 << 20;

const _: () = assert!(MAX_BEFORE_IMAGES + MAX_OUTPUTS + MAX_CHANGES + MAX_SENTENCE < MAX_MESSAGE);
const _: () = assert!(MAX_REFUSAL < MAX_MESSAGE && MAX_REPORT < MAX_MESSAGE);
