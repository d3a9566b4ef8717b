//! The words that plans, journals and status views share.

/// Declares an enumeration whose values have one spelling each, for text and
/// JSON alike.
macro_rules! words {
    (
        $(#[$of_type:meta])*
        $name:ident { $($(#[$of_value:meta])* $value:ident = $word:literal,)* }
    ) => {
        $(#[$of_type])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum $name {
            $($(#[$of_value])* #[serde(rename = $word)] $value,)*
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$value),*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word),*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// The two lists of phases of a plan.
    #[derive(Default)]
    Track {
        #[default]
        Forward = "forward",
        /// The phases of the rollback plan.
        Rollback = "rollback",
    }
}

words! {
    /// Condition for the release of a phase in addition to the votes of its agents.
    #[derive(Default)]
    Gate {
        /// No condition.
        #[default]
        None = "none",
        /// An operator approves the digest of the plan.
        Approval = "approval",
        /// The run stops here until an operator resumes it.
        Hold = "hold",
    }
}

words! {
    /// Reaction to the failure of a phase.
    #[derive(Default)]
    OnFailure {
        /// Wait for the operator.
        #[default]
        Hold = "hold",
        /// Roll back immediately. The run holds instead if the state of a task is
        /// unknown or the point of no return is passed.
        Rollback = "rollback",
        /// Continue with the next phase, and hold after the last one until the failed
        /// phase is resolved. Valid only in a rollback, where a DMS failure must not
        /// keep applications from Oracle.
        Continue = "continue",
    }
}

words! {
    /// Finding of the probe of a task.
    Finding {
        /// The action has work to do.
        Pending = "pending",
        /// The host is already in the desired state; the action is not run. An action
        /// whose outputs a later step may consume never returns this: it is always run,
        /// because a probe has no outputs and a proof must be fresh.
        Satisfied = "satisfied",
        /// The probe can't determine the state.
        Indeterminate = "indeterminate",
    }
}
