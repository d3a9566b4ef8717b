//! Users, privileges, and the session's own settings.

use std::collections::BTreeSet;

use sqlparser::tokenizer::Token;

use crate::api::OraError;

use super::call::Call;
use super::clock;
use super::errors::{no_table, ora, unsupported};
use super::lex::{Cursor, ident};

const NAME: (u32, &str) = (1935, "missing user or role name");
const OPTION: (u32, &str) = (922, "missing or invalid option");

/// `CREATE USER name IDENTIFIED BY password …`.
pub fn create_user(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    call.st.require(call.key, "CREATE USER")?;
    let name = c.name(NAME)?;
    if call.st.users.contains_key(&name) {
        let text = format!("user name '{name}' conflicts with another user or role name");
        return Err(ora(1920, text));
    }
    let password = if c.eat("IDENTIFIED BY") {
        Some(password(c)?)
    } else {
        None
    };
    if password.is_none() && !c.eat("NO AUTHENTICATION") {
        return Err(c.error((922, "missing or invalid option")));
    }
    let mut lock = false;
    while !c.at_end() && c.peek() != Some(&Token::SemiColon) {
        if c.eat("ACCOUNT LOCK") {
            lock = true;
        } else if c.eat("ACCOUNT UNLOCK") {
            lock = false;
        } else if c.eat("DEFAULT TABLESPACE") || c.eat("TEMPORARY TABLESPACE") || c.eat("PROFILE") {
            c.bump();
        } else if c.eat("QUOTA") {
            // QUOTA UNLIMITED ON users, QUOTA 10 M ON users.
            c.until(|c| c.sees("ON"));
            c.eat("ON");
            c.bump();
        } else {
            return Err(c.error(OPTION));
        }
    }
    call.st.add_user(&name, password, false);
    if lock && let Some(user) = call.st.users.get_mut(&name) {
        user.locked = Some(clock::now());
    }
    Ok(())
}

fn password(c: &mut Cursor<'_>) -> Result<String, OraError> {
    match c.bump() {
        // Passwords keep their case, quoted or not.
        Some(Token::Word(word)) => Ok(word.value.clone()),
        _ => Err(c.error((988, "missing or invalid password(s)"))),
    }
}

/// `CREATE ROLE name`: recorded, so that it can be granted.
pub fn create_role(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    call.st.require(call.key, "CREATE ROLE")?;
    c.name(NAME)?;
    c.finish()
}

/// `ALTER USER name ACCOUNT LOCK|UNLOCK`, `IDENTIFIED BY`.
pub fn alter_user(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    let name = c.name(NAME)?;
    let own = call.st.acting_user(call.key) == name;
    if !(own && c.sees("IDENTIFIED BY")) {
        call.st.require(call.key, "ALTER USER")?;
    }
    let Some(user) = call.st.users.get_mut(&name) else {
        return Err(ora(1918, format!("user '{name}' does not exist")));
    };
    let mut changed = false;
    loop {
        if c.eat("ACCOUNT LOCK") {
            user.locked = Some(user.locked.unwrap_or_else(clock::now));
        } else if c.eat("ACCOUNT UNLOCK") {
            user.locked = None;
        } else if c.eat("IDENTIFIED BY") {
            user.password = Some(password(c)?);
        } else if changed {
            return c.finish();
        } else {
            return Err(c.error(OPTION));
        }
        changed = true;
    }
}

/// `GRANT privileges TO users`, `GRANT privileges ON object TO users`.
pub fn grant(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    change_grants(call, c, "TO", true)
}

/// `REVOKE … FROM …`.
pub fn revoke(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    change_grants(call, c, "FROM", false)
}

fn change_grants(
    call: &mut Call<'_>,
    c: &mut Cursor<'_>,
    word: &str,
    give: bool,
) -> Result<(), OraError> {
    let mut list = c.until(|c| c.sees("ON") || c.sees(word));
    let privileges = privileges(&mut list)?;
    let object = if c.eat("ON") {
        Some(c.qualified((903, "invalid table name"))?)
    } else {
        None
    };
    c.expect(word, (905, "missing keyword"))?;
    let mut users = Vec::new();
    loop {
        users.push(c.name((987, "missing or invalid username(s)"))?);
        if !c.eat_token(&Token::Comma) {
            break;
        }
    }
    let _ = c.eat("WITH ADMIN OPTION") || c.eat("WITH GRANT OPTION");
    c.finish()?;
    let object = match object {
        None => {
            call.st.require(call.key, "GRANT ANY PRIVILEGE")?;
            None
        }
        Some((owner, name)) => Some(granted_object(call, owner, name)?),
    };
    for name in users {
        let Some(user) = call.st.users.get_mut(&name) else {
            return Err(ora(1917, format!("user or role '{name}' does not exist")));
        };
        let into = match &object {
            None => &mut user.grants,
            Some(object) => user.objects.entry(object.clone()).or_default(),
        };
        for privilege in &privileges {
            if give {
                into.insert(privilege.clone());
            } else {
                into.remove(privilege);
            }
        }
    }
    Ok(())
}

fn privileges(list: &mut Cursor<'_>) -> Result<BTreeSet<String>, OraError> {
    let mut out = BTreeSet::new();
    while !list.at_end() {
        let part = list.until(|c| c.peek() == Some(&Token::Comma));
        let words: Vec<String> = part
            .rest()
            .iter()
            .filter_map(|token| match &token.token {
                Token::Word(word) => Some(ident(word)),
                _ => None,
            })
            .collect();
        if words.is_empty() {
            return Err(list.error((990, "missing or invalid privilege")));
        }
        out.insert(words.join(" ").trim_end_matches(" PRIVILEGES").to_owned());
        list.eat_token(&Token::Comma);
    }
    Ok(out)
}

fn granted_object(
    call: &Call<'_>,
    owner: Option<String>,
    name: String,
) -> Result<(String, String), OraError> {
    let user = call.st.acting_user(call.key);
    let system = name.starts_with("V_$")
        || name.starts_with("GV_$")
        || name.starts_with("DBA_")
        || name.starts_with("DBMS_")
        || name.starts_with("UTL_");
    let owner = owner.unwrap_or_else(|| {
        if system {
            "SYS".to_owned()
        } else {
            user.clone()
        }
    });
    let key = (owner, name);
    let known = call.st.find_table(&key.0, &key.1).is_some()
        || call.st.sequences.contains_key(&key)
        || (system && key.0 == "SYS");
    if !known {
        return Err(no_table());
    }
    if key.0 != user {
        call.st.require(call.key, "GRANT ANY OBJECT PRIVILEGE")?;
    }
    Ok(key)
}

/// `ALTER SESSION SET …`: the formats, the schema; what changes nothing here
/// is accepted when its value is what the simulator does anyway.
pub fn alter_session(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    c.expect("SET", (922, "missing or invalid option"))?;
    while !c.at_end() && c.peek() != Some(&Token::SemiColon) {
        let name = c.name(OPTION)?;
        if !c.eat_token(&Token::Eq) {
            return Err(c.error((927, "missing equal sign")));
        }
        let value = match c.bump() {
            Some(Token::SingleQuotedString(text) | Token::Number(text, _)) => text.clone(),
            Some(Token::Word(word)) => ident(word),
            Some(Token::Minus) => format!("-{}", c.number(OPTION)?),
            _ => return Err(c.error(OPTION)),
        };
        set(call, &name, value)?;
    }
    c.finish()
}

fn set(call: &mut Call<'_>, name: &str, value: String) -> Result<(), OraError> {
    if name == "CURRENT_SCHEMA" && !call.st.users.contains_key(&value) {
        return Err(ora(1435, "user does not exist"));
    }
    let Some(session) = call.st.sessions.get_mut(&call.key) else {
        return Ok(());
    };
    match name {
        "NLS_DATE_FORMAT" | "NLS_TIMESTAMP_FORMAT" => {
            super::format::date(&clock::now(), &value)
                .map_err(|_| ora(1821, "date format not recognized"))?;
            if name == "NLS_DATE_FORMAT" {
                session.nls.date = value;
            } else {
                session.nls.timestamp = value;
            }
            let nls = session.nls.clone();
            super::format::use_nls(&nls);
        }
        "CURRENT_SCHEMA" => session.schema = value,
        "TIME_ZONE" if matches!(value.as_str(), "UTC" | "+00:00" | "-00:00" | "00:00") => {}
        "NLS_LANGUAGE" if value.eq_ignore_ascii_case("AMERICAN") => {}
        "NLS_TERRITORY" if value.eq_ignore_ascii_case("AMERICA") => {}
        "NLS_NUMERIC_CHARACTERS" if value == ".," => {}
        "NLS_SORT" | "NLS_COMP" if value.eq_ignore_ascii_case("BINARY") => {}
        "NLS_TIMESTAMP_TZ_FORMAT" | "STATISTICS_LEVEL" | "DDL_LOCK_TIMEOUT" => {}
        other => return Err(unsupported(format!("ALTER SESSION SET {other} = {value}"))),
    }
    Ok(())
}
