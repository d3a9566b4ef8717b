//! The wire protocol of Lockstep: what `lockstep/v1/*.proto` generates.
//!
//! [`convert`] translates them to and from the types of the barrier and of
//! `lockstep-api`.

pub mod convert;
pub mod limits;

/// Package `lockstep.v1`.
#[expect(
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    clippy::too_many_lines,
    reason = "generated code carries attributes of its own"
)]
pub mod v1 {
    tonic::include_proto!("lockstep.v1");
}

/// The compiled descriptors (a `FileDescriptorSet`): what the authorization
/// matrix is checked against.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
