//! Names in SQL text: always in double quotes and spelled exactly as in the
//! dictionary, so that lower case, blanks and reserved words are safe.

use crate::action::ActionError;
use lockstep_api::Code;

/// Maximum length of an identifier since Oracle 12.2, in bytes.
const LONGEST: usize = 128;

/// A name in double quotes.
///
/// # Errors
/// If it can't be a name: it is empty, too long, or contains a double quote or
/// a null character, which Oracle doesn't allow in identifiers.
pub fn quoted(name: &str) -> Result<String, ActionError> {
    if name.is_empty() || name.len() > LONGEST || name.contains(['"', '\0']) {
        return Err(
            ActionError::new(Code::LS2207, format!("{name:?} can't be a name in Oracle"))
                .state_left("nothing was done with it")
                .remedy("correct it in the plan"),
        );
    }
    Ok(format!("\"{name}\""))
}

/// `OWNER.NAME` of a table or sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qualified {
    /// Spelled as in the dictionary.
    pub owner: String,
    /// Spelled as in the dictionary.
    pub name: String,
}

impl Qualified {
    /// Parses `OWNER.NAME`.
    ///
    /// # Errors
    /// If it has another form, or a part can't be a name.
    pub fn read(text: &str) -> Result<Self, ActionError> {
        let parts = text.split_once('.');
        let (owner, name) = parts
            .filter(|(_, name)| !name.contains('.'))
            .ok_or_else(|| {
                ActionError::new(
                    Code::LS2207,
                    format!("{text:?} is not of the form OWNER.NAME"),
                )
                .state_left("nothing was done with it")
                .remedy("correct it in the plan")
            })?;
        quoted(owner)?;
        quoted(name)?;
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
        })
    }

    /// `"OWNER"."NAME"`.
    pub fn sql(&self) -> String {
        format!("\"{}\".\"{}\"", self.owner, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_spelling() {
        assert_eq!(quoted("ORDERS").unwrap(), "\"ORDERS\"");
        assert_eq!(quoted("my table").unwrap(), "\"my table\"");
        for wrong in ["", "a\"b", "a\0", &"x".repeat(129)] {
            assert_eq!(quoted(wrong).unwrap_err().code(), Code::LS2207);
        }
    }

    #[test]
    fn qualified_names_have_two_parts() {
        let name = Qualified::read("SHOP.ORDERS").unwrap();
        assert_eq!(name.sql(), "\"SHOP\".\"ORDERS\"");
        for wrong in ["ORDERS", "A.B.C", ".B", "A.", "A.\"B\""] {
            assert!(Qualified::read(wrong).is_err(), "{wrong}");
        }
    }
}
