//! The wire protocol of Lockstep: what `lockstep/v1/*.proto` generates.
//!
//! Generated types stop at one conversion file per daemon; nothing else of a
//! daemon knows them.

pub mod convert;
pub mod limits;

/// Package `lockstep.v1`.
#[expect(
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated code carries attributes of its own"
)]
pub mod v1 {
    tonic::include_proto!("lockstep.v1");
}

/// The compiled descriptors (a `FileDescriptorSet`): what the authorization
/// matrix is checked against.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
