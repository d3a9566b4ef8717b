//! The errors of both services, in the words of their models.
//!
//! Source: the service models of DMS (2016-01-01) and CloudWatch (2010-08-01).
//! An awsJson1.1 or rpc-v2-cbor error is a body with `__type` and `message`.

use axum::http::StatusCode;

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct Fault {
    pub code: Code,
    /// What the caller reads.
    pub message: String,
}

/// The error codes that the double answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A denial, on the operations that model it.
    AccessDeniedFault,
    /// A denial on every other operation; no operation models it.
    AccessDeniedException,
    /// Too many requests; the SDK retries it.
    ThrottlingException,
    /// DMS: no such resource, or no match for the filters.
    ResourceNotFoundFault,
    /// DMS: the resource is not in a state that permits the operation.
    InvalidResourceStateFault,
    /// DMS: the identifier is taken.
    ResourceAlreadyExistsFault,
    /// A value that is not accepted; unmodelled in DMS, and real nevertheless.
    InvalidParameterValueException,
    /// Two values that exclude each other.
    InvalidParameterCombinationException,
    /// A required value is missing.
    MissingRequiredParameterException,
    /// The body is not what the protocol says.
    SerializationException,
    /// Not an operation of the service, or one the double does not have.
    UnknownOperationException,
    /// CloudWatch: an alarm to be deleted does not exist.
    ResourceNotFound,
    /// CloudWatch: the dashboard does not exist.
    DashboardNotFoundError,
    /// CloudWatch: the dashboard's body is not valid.
    DashboardInvalidInputError,
    /// CloudWatch: a token that was not handed out.
    InvalidNextToken,
}

impl Code {
    /// The code as it travels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AccessDeniedFault => "AccessDeniedFault",
            Self::AccessDeniedException => "AccessDeniedException",
            Self::ThrottlingException => "ThrottlingException",
            Self::ResourceNotFoundFault => "ResourceNotFoundFault",
            Self::InvalidResourceStateFault => "InvalidResourceStateFault",
            Self::ResourceAlreadyExistsFault => "ResourceAlreadyExistsFault",
            Self::InvalidParameterValueException => "InvalidParameterValueException",
            Self::InvalidParameterCombinationException => "InvalidParameterCombinationException",
            Self::MissingRequiredParameterException => "MissingRequiredParameterException",
            Self::SerializationException => "SerializationException",
            Self::UnknownOperationException => "UnknownOperationException",
            Self::ResourceNotFound => "ResourceNotFound",
            Self::DashboardNotFoundError => "DashboardNotFoundError",
            Self::DashboardInvalidInputError => "DashboardInvalidInputError",
            Self::InvalidNextToken => "InvalidNextToken",
        }
    }

    /// The code as clients of CloudWatch's older query protocol know it; the SDK
    /// reads it from `x-amzn-query-error` (Smithy, `awsQueryError`).
    #[must_use]
    pub fn query_name(self) -> &'static str {
        match self {
            Self::InvalidParameterValueException => "InvalidParameterValue",
            Self::InvalidParameterCombinationException => "InvalidParameterCombination",
            Self::MissingRequiredParameterException => "MissingParameter",
            Self::DashboardInvalidInputError => "InvalidParameterInput",
            Self::DashboardNotFoundError => "ResourceNotFound",
            other => other.name(),
        }
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::DashboardNotFoundError | Self::ResourceNotFound => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Makes the constructors that most callers need.
macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $code:ident),* $(,)?) => {
        impl Fault {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(message: impl Into<String>) -> Self {
                Self { code: Code::$code, message: message.into() }
            })*
        }
    };
}

constructors! {
    not_found => ResourceNotFoundFault,
    /// The state does not permit it.
    wrong_state => InvalidResourceStateFault,
    /// The identifier is taken.
    exists => ResourceAlreadyExistsFault,
    /// A value that is not accepted.
    invalid => InvalidParameterValueException,
    /// Values that exclude each other.
    combination => InvalidParameterCombinationException,
    /// A required value is missing.
    missing => MissingRequiredParameterException,
    /// The body can't be read.
    serialization => SerializationException,
    unknown_operation => UnknownOperationException,
}
