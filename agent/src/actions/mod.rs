//! The table of actions: one file each, by the area they work in.

use crate::action::AnyAction;

mod service;

/// The action of that name.
pub fn find(name: &str) -> Option<&'static dyn AnyAction> {
    ACTIONS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, action)| *action)
}

/// Every action this agent knows.
const ACTIONS: &[(&str, &dyn AnyAction)] = &[
    ("service.restart", &service::restart::Restart),
    ("service.start", &service::start::Start),
    ("service.stop", &service::stop::Stop),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(ACTIONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
