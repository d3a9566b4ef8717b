//! Names in SQL text: always in double quotes, exactly as the dictionary
//! spells them, so that lower case, blanks and reserved words do no harm.

use crate::action::ActionError;

/// Longest identifier since Oracle 12.2, in bytes.
const LONGEST: usize = 128;

/// A name in double quotes.
///
/// # Errors
/// Where it can't be a name: empty, too long, or with a double quote or a
/// null character in it, which Oracle allows in none.
pub fn quoted(name: &str) -> Result<String, ActionError> {
    if name.is_empty() || name.len() > LONGEST || name.contains(['"', '\0']) {
        return Err(
            ActionError::new("LS2207", format!("{name:?} can't be a name in Oracle"))
                .left("nothing was done with it")
                .next("correct it in the plan"),
        );
    }
    Ok(format!("\"{name}\""))
}

/// `OWNER.NAME` of a table or sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qualified {
    /// Owner, as the dictionary spells it.
    pub owner: String,
    /// Name, as the dictionary spells it.
    pub name: String,
}

impl Qualified {
    /// Reads `OWNER.NAME`.
    ///
    /// # Errors
    /// Where it has another form.
    pub fn read(text: &str) -> Result<Self, ActionError> {
        let parts = text.split_once('.');
        let (owner, name) = parts
            .filter(|(_, name)| !name.contains('.'))
            .ok_or_else(|| {
                ActionError::new("LS2207", format!("{text:?} is not of the form OWNER.NAME"))
                    .left("nothing was done with it")
                    .next("correct it in the plan")
            })?;
        // What can't be quoted is no name.
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
            assert_eq!(quoted(wrong).unwrap_err().code(), "LS2207");
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
