//! Tables and indexes: made, changed; and whatever is dropped.

use super::call::Call;
use super::errors::{Outcome, no_table, ora, stop, unsupported};
use super::exec::upper;
use super::kinds;
use super::lex::Cursor;
use super::query::split_name;
use super::sessions::SessionKey;
use super::state::State;
use super::storage::{ColumnDef, Constraint, Rule, Table};
use crate::api::OraError;
use sqlparser::ast::{
    self, ColumnOption, Expr, GeneratedAs, IndexColumn, ReferentialAction, TableConstraint,
};
use sqlparser::tokenizer::Token;

const TABLE: (u32, &str) = (903, "invalid table name");
const OPTION: (u32, &str) = (922, "missing or invalid option");

impl State {
    /// The schema in which a session names things.
    pub fn schema(&self, key: SessionKey) -> String {
        self.session(key)
            .map(|session| session.schema.clone())
            .unwrap_or_default()
    }

    /// Whether a session may make an object in a schema.
    pub fn may_create(&self, key: SessionKey, owner: &str, what: &str) -> Result<(), OraError> {
        if !self.users.contains_key(owner) {
            return Err(ora(1918, format!("user '{owner}' does not exist")));
        }
        if self.acting_user(key) == owner {
            self.require(key, &format!("CREATE {what}"))
        } else {
            self.require(key, &format!("CREATE ANY {what}"))
        }
    }

    /// ORA-00955 where a name is taken.
    pub fn name_taken(&self, owner: &str, name: &str) -> Result<(), OraError> {
        let object = (owner.to_owned(), name.to_owned());
        if self.find_table(owner, name).is_some() || self.sequences.contains_key(&object) {
            return Err(ora(955, "name is already used by an existing object"));
        }
        Ok(())
    }

    /// The table a name means, for its owner or with an ANY privilege.
    fn own_table(
        &self,
        key: SessionKey,
        (owner, name): (Option<String>, String),
        any: &str,
    ) -> Result<usize, OraError> {
        let owner = owner.unwrap_or_else(|| self.schema(key));
        let number = self.find_table(&owner, &name).ok_or_else(no_table)?;
        if self.acting_user(key) != owner {
            self.require(key, any)?;
        }
        Ok(number)
    }
}

pub fn create_table(st: &mut State, key: SessionKey, create: &ast::CreateTable) -> Outcome<()> {
    if create.query.is_some() || create.temporary || create.global.is_some() {
        return Err(unsupported("CREATE TABLE … AS SELECT and temporary tables").into());
    }
    let (owner, name) = split_name(&create.name);
    let owner = owner.unwrap_or_else(|| st.schema(key));
    st.may_create(key, &owner, "TABLE")?;
    st.name_taken(&owner, &name)?;
    let mut columns: Vec<ColumnDef> = Vec::new();
    for column in &create.columns {
        let kind = kinds::of_data_type(&column.data_type)?;
        let name = upper(&column.name);
        if columns.iter().any(|other| other.name == name) {
            return stop(957, "duplicate column name");
        }
        columns.push(ColumnDef {
            name,
            kind,
            nullable: true,
            default: None,
        });
    }
    let scn = st.next_scn();
    let mut table = Table::new(owner, name, columns, scn);
    for (at, column) in create.columns.iter().enumerate() {
        for option in &column.options {
            let given = option.name.as_ref().map(upper);
            column_option(st, &mut table, at, given, &option.option)?;
        }
    }
    for constraint in &create.constraints {
        table_constraint(st, &mut table, constraint)?;
    }
    st.add_table(table);
    Ok(())
}

fn column_option(
    st: &State,
    table: &mut Table,
    at: usize,
    name: Option<String>,
    option: &ColumnOption,
) -> Outcome<()> {
    match option {
        ColumnOption::Null => {}
        ColumnOption::NotNull => table.columns[at].nullable = false,
        ColumnOption::Default(expr) => table.columns[at].default = Some(expr.clone()),
        ColumnOption::PrimaryKey(_) => add_key(st, table, name, vec![at], Rule::Primary)?,
        ColumnOption::Unique(_) => add_key(st, table, name, vec![at], Rule::Unique)?,
        ColumnOption::ForeignKey(foreign) => {
            let rule = foreign_rule(
                st,
                table,
                &foreign.foreign_table,
                &foreign.referred_columns,
                foreign.on_delete,
            )?;
            add_key(st, table, name, vec![at], rule)?;
        }
        ColumnOption::Generated {
            generated_as: GeneratedAs::Always | GeneratedAs::ByDefault,
            ..
        } => {
            return Err(unsupported("identity columns; use a sequence").into());
        }
        other => return Err(unsupported(format!("the column option {other}")).into()),
    }
    Ok(())
}

fn positions<'i>(
    table: &Table,
    names: impl Iterator<Item = &'i ast::Ident>,
) -> Result<Vec<usize>, OraError> {
    names
        .map(|name| {
            let name = upper(name);
            table
                .column(&name)
                .ok_or_else(|| ora(904, format!("\"{name}\": invalid identifier")))
        })
        .collect()
}

fn index_columns(table: &Table, columns: &[IndexColumn]) -> Result<Vec<usize>, OraError> {
    let mut names = Vec::new();
    for column in columns {
        match &column.column.expr {
            Expr::Identifier(name) => names.push(name),
            _ => return Err(unsupported("keys over expressions")),
        }
    }
    positions(table, names.into_iter())
}

fn table_constraint(st: &State, table: &mut Table, constraint: &TableConstraint) -> Outcome<()> {
    match constraint {
        TableConstraint::PrimaryKey(key) => {
            let columns = index_columns(table, &key.columns)?;
            add_key(
                st,
                table,
                key.name.as_ref().map(upper),
                columns,
                Rule::Primary,
            )
        }
        TableConstraint::Unique(key) => {
            let columns = index_columns(table, &key.columns)?;
            add_key(
                st,
                table,
                key.name.as_ref().map(upper),
                columns,
                Rule::Unique,
            )
        }
        TableConstraint::ForeignKey(key) => {
            let columns = positions(table, key.columns.iter())?;
            let rule = foreign_rule(
                st,
                table,
                &key.foreign_table,
                &key.referred_columns,
                key.on_delete,
            )?;
            add_key(st, table, key.name.as_ref().map(upper), columns, rule)
        }
        other => Err(unsupported(format!("the constraint {other}")).into()),
    }
}

fn foreign_rule(
    st: &State,
    table: &Table,
    parent: &ast::ObjectName,
    columns: &[ast::Ident],
    on_delete: Option<ReferentialAction>,
) -> Result<Rule, OraError> {
    let (owner, name) = split_name(parent);
    let owner = owner.unwrap_or_else(|| table.owner.clone());
    let number = st.find_table(&owner, &name).ok_or_else(no_table)?;
    let parent = &st.tables[number];
    let columns = if columns.is_empty() {
        parent
            .primary_key()
            .map(<[usize]>::to_vec)
            .ok_or_else(|| ora(2268, "referenced table does not have a primary key"))?
    } else {
        positions(parent, columns.iter())?
    };
    let is_key = parent.constraints.iter().any(|constraint| {
        constraint.columns == columns && !matches!(constraint.rule, Rule::Foreign { .. })
    });
    if !is_key {
        return Err(ora(
            2270,
            "no matching unique or primary key for this column-list",
        ));
    }
    let cascade = match on_delete {
        None | Some(ReferentialAction::NoAction | ReferentialAction::Restrict) => false,
        Some(ReferentialAction::Cascade) => true,
        Some(_) => return Err(unsupported("ON DELETE SET NULL")),
    };
    Ok(Rule::Foreign {
        parent: number,
        columns,
        cascade,
    })
}

/// Adds a constraint with its index; SYS_C… where it has no name.
fn add_key(
    st: &State,
    table: &mut Table,
    name: Option<String>,
    columns: Vec<usize>,
    rule: Rule,
) -> Outcome<()> {
    let taken = |name: &str| {
        st.live_tables()
            .filter(|other| other.owner == table.owner)
            .flat_map(|other| &other.constraints)
            .chain(&table.constraints)
            .any(|constraint| constraint.name == name)
    };
    let name = match name {
        Some(name) if taken(&name) => {
            return stop(2264, "name already used by an existing constraint");
        }
        Some(name) => name,
        None => format!(
            "SYS_C{:07}",
            7000 + st.tables.len() * 10 + table.constraints.len()
        ),
    };
    match rule {
        Rule::Primary => {
            if table.primary_key().is_some() {
                return stop(2260, "table can have only one primary key");
            }
            columns
                .iter()
                .for_each(|at| table.columns[*at].nullable = false);
        }
        Rule::Unique | Rule::Foreign { .. } => {}
    }
    table.add_index(columns.clone());
    table.constraints.push(Constraint {
        name,
        columns,
        rule,
        enabled: true,
    });
    Ok(())
}

/// `ALTER TABLE name ADD CONSTRAINT …`, `ADD SUPPLEMENTAL LOG DATA …`,
/// `ENABLE|DISABLE ALL TRIGGERS`, `ENABLE|DISABLE CONSTRAINT name`.
pub fn alter_table(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    let name = c.qualified(TABLE)?;
    let number = call.st.own_table(call.key, name, "ALTER ANY TABLE")?;
    if c.eat("ADD SUPPLEMENTAL LOG DATA") {
        let table = &mut call.st.tables[number];
        for columns in c.log_columns()? {
            let kind = match columns {
                "ALL" => "ALL COLUMN LOGGING",
                "PRIMARY KEY" => "PRIMARY KEY LOGGING",
                "UNIQUE" => "UNIQUE KEY LOGGING",
                _ => "FOREIGN KEY LOGGING",
            };
            if table.log_groups.iter().any(|(_, have)| have == kind) {
                return Err(ora(
                    32588,
                    format!("supplemental logging attribute {columns} exists"),
                ));
            }
            let group = format!("SYS_C{:07}", 9000 + number * 10 + table.log_groups.len());
            table.log_groups.push((group, kind.to_owned()));
        }
        return Ok(());
    }
    let enabled = c.sees("ENABLE ALL TRIGGERS");
    if c.eat("ENABLE ALL TRIGGERS") || c.eat("DISABLE ALL TRIGGERS") {
        c.finish()?;
        for trigger in call
            .st
            .triggers
            .values_mut()
            .filter(|trigger| trigger.table == number)
        {
            trigger.enabled = enabled;
        }
        return Ok(());
    }
    if c.sees("ENABLE CONSTRAINT") || c.sees("DISABLE CONSTRAINT") {
        let enabled = c.sees("ENABLE");
        c.bump();
        c.bump();
        let name = c.name(OPTION)?;
        c.finish()?;
        let constraints = &call.st.tables[number].constraints;
        let Some(at) = constraints.iter().position(|other| other.name == name) else {
            let (code, verb) = if enabled {
                (2430, "enable")
            } else {
                (2431, "disable")
            };
            let text = format!("cannot {verb} constraint ({name}) - no such constraint");
            return Err(ora(code, text));
        };
        if enabled {
            let rule = constraints[at].clone();
            call.st.validate(call.key, number, &rule)?;
        }
        call.st.tables[number].constraints[at].enabled = enabled;
        return Ok(());
    }
    Err(unsupported("this form of ALTER TABLE"))
}

/// `CREATE [UNIQUE] INDEX name ON table (columns)`.
pub fn create_index(call: &mut Call<'_>, c: &mut Cursor<'_>, unique: bool) -> Result<(), OraError> {
    let (_, index) = c.qualified((953, "missing or invalid index name"))?;
    c.expect("ON", (969, "missing ON keyword"))?;
    let name = c.qualified(TABLE)?;
    let number = call.st.own_table(call.key, name, "CREATE ANY INDEX")?;
    if !c.eat_token(&Token::LParen) {
        return Err(c.error((906, "missing left parenthesis")));
    }
    let mut columns = Vec::new();
    loop {
        let column = c.name((904, "invalid identifier"))?;
        let at = call.st.tables[number].column(&column);
        columns.push(at.ok_or_else(|| ora(904, format!("\"{column}\": invalid identifier")))?);
        let _ = c.eat("ASC") || c.eat("DESC");
        if !c.eat_token(&Token::Comma) {
            break;
        }
    }
    if !c.eat_token(&Token::RParen) {
        return Err(c.error((907, "missing right parenthesis")));
    }
    if !c.at_end() && c.peek() != Some(&Token::SemiColon) {
        return Err(unsupported(format!("the index option {}", c.text())));
    }
    c.finish()?;
    let key = call.key;
    call.st
        .index_may_be(key, number, &index, &columns, unique)?;
    let table = &mut call.st.tables[number];
    table.add_index(columns.clone());
    if unique {
        // A unique index is kept as the constraint it amounts to.
        let constraint = Constraint {
            name: index,
            columns,
            rule: Rule::Unique,
            enabled: true,
        };
        table.constraints.push(constraint);
    }
    Ok(())
}

/// `DROP TABLE|SEQUENCE|TRIGGER|USER name`.
pub fn drop_object(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    let key = call.key;
    if c.eat("TABLE") {
        let name = c.qualified(TABLE)?;
        let number = call.st.own_table(key, name, "DROP ANY TABLE")?;
        let cascade = c.eat("CASCADE CONSTRAINTS");
        c.eat("PURGE");
        c.finish()?;
        let refers = |constraint: &Constraint| matches!(constraint.rule, Rule::Foreign { parent, .. } if parent == number);
        let referred = call.st.tables.iter().enumerate().any(|(at, table)| {
            at != number && !table.dropped && table.constraints.iter().any(refers)
        });
        if referred && !cascade {
            return Err(ora(
                2449,
                "unique/primary keys in table referenced by foreign keys",
            ));
        }
        for table in &mut call.st.tables {
            table.constraints.retain(|constraint| !refers(constraint));
        }
        call.st
            .triggers
            .retain(|_, trigger| trigger.table != number);
        call.st.drop_table(number);
        return Ok(());
    }
    let is_sequence = c.eat("SEQUENCE");
    if !is_sequence && !c.eat("TRIGGER") {
        return Err(unsupported("DROP of this kind of object"));
    }
    let (owner, name) = c.qualified((903, "invalid name"))?;
    c.finish()?;
    let object = (owner.unwrap_or_else(|| call.st.schema(key)), name);
    if call.st.acting_user(key) != object.0 {
        call.st.require(key, "DROP ANY TABLE")?;
    }
    if is_sequence {
        let gone = call.st.sequences.remove(&object);
        gone.map(|_| ())
            .ok_or_else(|| ora(2289, "sequence does not exist"))
    } else {
        let gone = call.st.triggers.remove(&object);
        gone.map(|_| ())
            .ok_or_else(|| ora(4080, format!("trigger '{}' does not exist", object.1)))
    }
}

/// `TRUNCATE TABLE name`: the rows go at one SCN; redo has nothing of it, as
/// LogMiner shows it as DDL only.
pub fn truncate(call: &mut Call<'_>, c: &mut Cursor<'_>) -> Result<(), OraError> {
    let name = c.qualified(TABLE)?;
    c.finish()?;
    let number = call.st.own_table(call.key, name, "DROP ANY TABLE")?;
    let busy = call.st.tables[number]
        .rows
        .iter()
        .any(|row| row.pending.is_some());
    if busy {
        return Err(ora(
            54,
            "resource busy and acquire with NOWAIT specified or timeout expired",
        ));
    }
    let scn = call.st.next_scn();
    for row in &mut call.st.tables[number].rows {
        if row
            .versions
            .last()
            .is_some_and(|(_, version)| version.is_some())
        {
            row.versions.push((scn, None));
        }
    }
    Ok(())
}
