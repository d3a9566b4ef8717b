//! Users, privileges, and the session's own settings.

use super::call::Call;
use super::clock;
use super::errors::{no_table, ora, unsupported};
use super::lex::{Cursor, ident};
use super::privileges;
use super::state::{Role, State};
use crate::api::OraError;
use sqlparser::tokenizer::Token;
use std::collections::BTreeSet;

const NAME: (u32, &str) = (1935, "missing user or role name");
const OPTION: (u32, &str) = (922, "missing or invalid option");

/// `CREATE USER name IDENTIFIED BY password …`.
pub fn create_user(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    call.st.require(call.key, "CREATE USER")?;
    let name = c.name(NAME)?;
    if call.st.users.contains_key(&name) || call.st.roles.contains_key(&name) {
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
            c.expect("ON", OPTION)?;
            c.name(OPTION)?;
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

/// `CREATE ROLE name [NOT IDENTIFIED]`: who makes it has it.
pub fn create_role(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    call.st.require(call.key, "CREATE ROLE")?;
    let name = c.name(NAME)?;
    c.eat("NOT IDENTIFIED");
    if c.sees("IDENTIFIED") {
        return Err(unsupported("roles with a password"));
    }
    c.finish()?;
    if call.st.users.contains_key(&name) || call.st.roles.contains_key(&name) {
        let text = format!("role name '{name}' conflicts with another user or role name");
        return Err(ora(1921, text));
    }
    call.st.roles.insert(name.clone(), Role::default());
    let maker = call.st.acting_user(call.key);
    if let Some(user) = call.st.users.get_mut(&maker).filter(|_| maker != "SYS") {
        user.grants.insert(name);
    }
    Ok(())
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
    let given = privileges(&mut list)?;
    let object = if c.eat("ON") {
        Some(c.qualified((903, "invalid table name"))?)
    } else {
        None
    };
    c.expect(word, (905, "missing keyword"))?;
    let mut grantees = Vec::new();
    loop {
        grantees.push(c.name((987, "missing or invalid username(s)"))?);
        if !c.eat_token(&Token::Comma) {
            break;
        }
    }
    if c.sees("WITH") {
        return Err(unsupported("WITH ADMIN OPTION and WITH GRANT OPTION"));
    }
    c.finish()?;
    let (given, object) = match object {
        None => (system_grants(call, given)?, None),
        Some((owner, name)) => {
            if !given.iter().all(|name| privileges::is_on_objects(name)) {
                return Err(ora(990, "missing or invalid privilege"));
            }
            (given, Some(granted_object(call, owner, name)?))
        }
    };
    for name in grantees {
        change_grantee(call, &name, &given, object.as_ref(), give)?;
    }
    Ok(())
}

/// Privileges and roles as they are granted: ALL stands for all privileges.
fn system_grants(call: &Call<'_>, given: BTreeSet<String>) -> Result<BTreeSet<String>, OraError> {
    let mut out = BTreeSet::new();
    for name in given {
        if name == "ALL" {
            call.st.require(call.key, "GRANT ANY PRIVILEGE")?;
            out.extend(privileges::all_system());
        } else if call.st.roles.contains_key(&name) {
            call.st.require(call.key, "GRANT ANY ROLE")?;
            out.insert(name);
        } else if privileges::is_system(&name) {
            call.st.require(call.key, "GRANT ANY PRIVILEGE")?;
            out.insert(name);
        } else if name.contains(' ') {
            return Err(ora(990, "missing or invalid privilege"));
        } else {
            // One word that is no privilege can only be a role.
            return Err(ora(1919, format!("role '{name}' does not exist")));
        }
    }
    Ok(out)
}

/// Gives a user or role something, or takes it away.
fn change_grantee(
    call: &mut Call<'_>,
    grantee: &str,
    given: &BTreeSet<String>,
    object: Option<&(String, String)>,
    give: bool,
) -> Result<(), OraError> {
    let st = &mut *call.st;
    for name in given.iter().filter(|_| give) {
        let role = st.roles.contains_key(name) && st.roles.contains_key(grantee);
        if role && (name == grantee || st.holds(name, grantee)) {
            return Err(ora(1934, "circular role grant detected"));
        }
    }
    let is_role: Vec<bool> = given.iter().map(|one| st.roles.contains_key(one)).collect();
    let (grants, objects) = match (st.users.get_mut(grantee), st.roles.get_mut(grantee)) {
        (Some(user), _) => (&mut user.grants, &mut user.objects),
        (None, Some(role)) => (&mut role.grants, &mut role.objects),
        (None, None) => {
            let text = format!("user or role '{grantee}' does not exist");
            return Err(ora(1917, text));
        }
    };
    let into = match object {
        None => grants,
        Some(object) => objects.entry(object.clone()).or_default(),
    };
    for (name, is_role) in given.iter().zip(is_role) {
        if give {
            into.insert(name.clone());
        } else if !into.remove(name) {
            return Err(match (object, is_role) {
                (Some(_), _) => ora(1927, "cannot REVOKE privileges you did not grant"),
                (None, true) => ora(1951, format!("ROLE '{name}' not granted to '{grantee}'")),
                (None, false) => ora(
                    1952,
                    format!("system privileges not granted to '{grantee}'"),
                ),
            });
        }
    }
    // Without a privilege left the grantee does not know the object.
    forget_empty(st, grantee);
    Ok(())
}

/// Forgets objects on which nothing is granted any more.
fn forget_empty(st: &mut State, grantee: &str) {
    if let Some(user) = st.users.get_mut(grantee) {
        user.objects.retain(|_, left| !left.is_empty());
    }
    if let Some(role) = st.roles.get_mut(grantee) {
        role.objects.retain(|_, left| !left.is_empty());
    }
}

/// The words between the commas; columns in parentheses are refused.
fn privileges(list: &mut Cursor<'_>) -> Result<BTreeSet<String>, OraError> {
    let mut out = BTreeSet::new();
    loop {
        let mut part = list.until(|c| c.peek() == Some(&Token::Comma));
        let mut words = Vec::new();
        while let Some(token) = part.bump() {
            match token {
                Token::Word(word) => words.push(ident(word)),
                Token::LParen => return Err(unsupported("privileges on columns")),
                _ => return Err(list.error((990, "missing or invalid privilege"))),
            }
        }
        if words.is_empty() {
            return Err(list.error((990, "missing or invalid privilege")));
        }
        let name = words.join(" ");
        out.insert(match name.as_str() {
            "ALL PRIVILEGES" => "ALL".to_owned(),
            _ => name,
        });
        if !list.eat_token(&Token::Comma) {
            return Ok(out);
        }
    }
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
