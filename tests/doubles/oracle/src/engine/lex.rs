//! Oracle's text cut into tokens, and a cursor over them.
//!
//! The tokens are sqlparser's. Bind variables, which it sees as a colon and a
//! word, become one `Placeholder` token (`:1`, `:NAME`, in a trigger's body
//! `:NEW.COLUMN`), so that the parser and the hand-written recognisers agree
//! on them.

use super::errors::ora;
use crate::api::OraError;
use sqlparser::dialect::{Dialect, OracleDialect};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Word};
use std::sync::Arc;

/// Oracle's dialect, with `AS OF SCN` let through as a table version.
#[derive(Debug)]
pub struct Dialect19;

impl Dialect for Dialect19 {
    fn dialect(&self) -> std::any::TypeId {
        OracleDialect.dialect()
    }
    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        OracleDialect.identifier_quote_style(identifier)
    }
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        OracleDialect.is_delimited_identifier_start(ch)
    }
    fn is_identifier_start(&self, ch: char) -> bool {
        OracleDialect.is_identifier_start(ch)
    }
    fn is_identifier_part(&self, ch: char) -> bool {
        // `@` starts a database link, which the engine refuses by itself.
        ch != '@' && OracleDialect.is_identifier_part(ch)
    }
    fn supports_outer_join_operator(&self) -> bool {
        true
    }
    fn get_next_precedence(
        &self,
        parser: &Parser<'_>,
    ) -> Option<Result<u8, sqlparser::parser::ParserError>> {
        OracleDialect.get_next_precedence(parser)
    }
    fn supports_boolean_literals(&self) -> bool {
        false
    }
    fn supports_group_by_expr(&self) -> bool {
        true
    }
    fn supports_quote_delimited_string(&self) -> bool {
        true
    }
    fn supports_comment_optimizer_hint(&self) -> bool {
        true
    }
    fn supports_insert_table_alias(&self) -> bool {
        true
    }
    fn supports_table_versioning(&self) -> bool {
        true
    }
}

/// A text and its tokens, white space and comments left out.
#[derive(Debug, Clone)]
pub struct Lexed {
    pub text: Arc<str>,
    pub tokens: Vec<TokenWithSpan>,
    /// Byte offset of each token, and of the text's end.
    pub offsets: Vec<usize>,
}

/// Cuts a text into tokens; ORA-00911 or ORA-01756 where that fails.
pub fn lex(text: &str) -> Result<Lexed, OraError> {
    let raw = Tokenizer::new(&Dialect19, text)
        .tokenize_with_location()
        .map_err(|error| {
            let message = error.to_string();
            if message.contains("nterminated") {
                ora(1756, "quoted string not properly terminated")
            } else {
                ora(911, format!("invalid character ({message})"))
            }
        })?;
    let positions = line_starts(text);
    let mut lexed = Lexed {
        text: text.into(),
        tokens: Vec::new(),
        offsets: Vec::new(),
    };
    for token in raw {
        if matches!(token.token, Token::Whitespace(_) | Token::EOF) {
            continue;
        }
        let offset = byte_offset(
            text,
            &positions,
            token.span.start.line,
            token.span.start.column,
        );
        let name = match (&token.token, lexed.tokens.last().map(|last| &last.token)) {
            (Token::Word(word), Some(Token::Colon)) => Some(ident(word)),
            (Token::Number(number, _), Some(Token::Colon)) => Some(number.clone()),
            _ => None,
        };
        if let Some(name) = name
            && let Some(last) = lexed.tokens.last_mut()
        {
            last.token = Token::Placeholder(format!(":{name}"));
            continue;
        }
        lexed.tokens.push(token);
        lexed.offsets.push(offset);
    }
    lexed.offsets.push(text.len());
    Ok(lexed)
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0)
        .chain(text.match_indices('\n').map(|(at, _)| at + 1))
        .collect()
}

fn byte_offset(text: &str, lines: &[usize], line: u64, column: u64) -> usize {
    let start = lines
        .get((line as usize).saturating_sub(1))
        .copied()
        .unwrap_or(0);
    let skip = (column as usize).saturating_sub(1);
    if text.is_ascii() {
        return (start + skip).min(text.len());
    }
    text[start..]
        .char_indices()
        .nth(skip)
        .map_or(text.len(), |(at, _)| start + at)
}

/// A name as the dictionary holds it.
pub fn ident(word: &Word) -> String {
    if word.quote_style.is_some() {
        word.value.clone()
    } else {
        word.value.to_uppercase()
    }
}

impl Lexed {
    /// A cursor at the first token.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor {
            lexed: self,
            at: 0,
            end: self.tokens.len(),
        }
    }
}

/// A place among tokens, with which the hand-written recognisers read.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'l> {
    lexed: &'l Lexed,
    at: usize,
    end: usize,
}

impl<'l> Cursor<'l> {
    /// The next token without taking it.
    pub fn peek(&self) -> Option<&'l Token> {
        self.peek_at(0)
    }

    /// A token further on.
    pub fn peek_at(&self, ahead: usize) -> Option<&'l Token> {
        let at = self.at + ahead;
        (at < self.end).then(|| &self.lexed.tokens[at].token)
    }

    /// Takes the next token.
    pub fn bump(&mut self) -> Option<&'l Token> {
        let token = self.peek();
        self.at += usize::from(token.is_some());
        token
    }

    /// Whether the tokens are used up.
    pub fn at_end(&self) -> bool {
        self.at >= self.end
    }

    /// Byte offset of the next token.
    pub fn offset(&self) -> usize {
        self.lexed.offsets[self.at.min(self.lexed.offsets.len() - 1)]
    }

    /// Whether the words come next.
    pub fn sees(&self, words: &str) -> bool {
        words.split(' ').enumerate().all(|(ahead, word)| {
            matches!(self.peek_at(ahead), Some(Token::Word(next))
                if next.quote_style.is_none() && next.value.eq_ignore_ascii_case(word))
        })
    }

    /// Takes the words if they come next.
    pub fn eat(&mut self, words: &str) -> bool {
        let there = self.sees(words);
        if there {
            self.at += words.split(' ').count();
        }
        there
    }

    /// Whether the token just taken is that word.
    pub fn previous_is(&self, word: &str) -> bool {
        self.at.checked_sub(1).is_some_and(|at| {
            matches!(&self.lexed.tokens[at].token, Token::Word(last)
                if last.value.eq_ignore_ascii_case(word))
        })
    }

    /// Takes a token if it comes next.
    pub fn eat_token(&mut self, token: &Token) -> bool {
        let there = self.peek() == Some(token);
        self.at += usize::from(there);
        there
    }

    /// Takes the words or fails with the error.
    pub fn expect(&mut self, words: &str, error: (u32, &str)) -> Result<(), OraError> {
        if self.eat(words) {
            Ok(())
        } else {
            Err(self.error(error))
        }
    }

    /// Takes a name or fails with the error.
    pub fn name(&mut self, error: (u32, &str)) -> Result<String, OraError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(ident(word))
            }
            _ => Err(self.error(error)),
        }
    }

    /// Takes `name` or `owner.name`.
    pub fn qualified(&mut self, error: (u32, &str)) -> Result<(Option<String>, String), OraError> {
        let first = self.name(error)?;
        if self.eat_token(&Token::Period) {
            return Ok((Some(first), self.name(error)?));
        }
        Ok((None, first))
    }

    /// Takes a quoted string or fails with the error.
    pub fn string(&mut self, error: (u32, &str)) -> Result<String, OraError> {
        match self.peek() {
            Some(Token::SingleQuotedString(text)) => {
                self.at += 1;
                Ok(text.clone())
            }
            _ => Err(self.error(error)),
        }
    }

    /// Takes a whole number, with its sign, or fails with the error.
    pub fn number(&mut self, error: (u32, &str)) -> Result<i128, OraError> {
        let negative = self.eat_token(&Token::Minus);
        match self.peek() {
            Some(Token::Number(text, _)) => {
                self.at += 1;
                let value: i128 = text.parse().map_err(|_| self.error(error))?;
                Ok(if negative { -value } else { value })
            }
            _ => Err(self.error(error)),
        }
    }

    /// An error that points at the next token.
    pub fn error(&self, (code, message): (u32, &str)) -> OraError {
        ora(code, message).at(u32::try_from(self.offset()).unwrap_or(u32::MAX))
    }

    /// Takes `(ALL | PRIMARY KEY | UNIQUE | FOREIGN KEY, …) COLUMNS` of ADD
    /// SUPPLEMENTAL LOG DATA: which columns are to be logged.
    pub fn log_columns(&mut self) -> Result<Vec<&'static str>, OraError> {
        if !self.eat_token(&Token::LParen) {
            return Err(self.error((906, "missing left parenthesis")));
        }
        let mut kinds = Vec::new();
        loop {
            let kind = ["ALL", "PRIMARY KEY", "UNIQUE", "FOREIGN KEY"]
                .into_iter()
                .find(|kind| self.eat(kind));
            kinds.push(kind.ok_or_else(|| self.error((922, "missing or invalid option")))?);
            if !self.eat_token(&Token::Comma) {
                break;
            }
        }
        if !self.eat_token(&Token::RParen) {
            return Err(self.error((907, "missing right parenthesis")));
        }
        self.expect("COLUMNS", (905, "missing keyword"))?;
        self.finish()?;
        Ok(kinds)
    }

    /// ORA-00933 unless the tokens are used up.
    pub fn finish(&mut self) -> Result<(), OraError> {
        while self.eat_token(&Token::SemiColon) {}
        if self.at_end() {
            Ok(())
        } else {
            Err(self.error((933, "SQL command not properly ended")))
        }
    }

    /// The tokens up to one that satisfies the test outside parentheses,
    /// which is not taken.
    pub fn until(&mut self, stop: impl Fn(&Cursor<'l>) -> bool) -> Cursor<'l> {
        let begin = self.at;
        let mut depth = 0_usize;
        while let Some(token) = self.peek() {
            if depth == 0 && stop(self) {
                break;
            }
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
        }
        Cursor {
            lexed: self.lexed,
            at: begin,
            end: self.at,
        }
    }

    /// The text that the remaining tokens cover.
    pub fn text(&self) -> &'l str {
        if self.at_end() {
            return "";
        }
        let from = self.lexed.offsets[self.at];
        let to = self.lexed.offsets[self.end];
        self.lexed.text[from..to].trim()
    }

    pub fn rest(&self) -> &'l [TokenWithSpan] {
        &self.lexed.tokens[self.at..self.end]
    }

    /// The bind names in order of appearance, repeats included.
    pub fn binds(&self) -> Vec<String> {
        self.rest()
            .iter()
            .filter_map(|token| match &token.token {
                Token::Placeholder(name) => Some(name[1..].to_owned()),
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_one_token_and_strings_hide_them() {
        let lexed = lex("SELECT :a||':b', :1 FROM \"T\" -- :c\n WHERE x=:A").unwrap();
        assert_eq!(lexed.cursor().binds(), ["A", "1", "A"]);
    }

    #[test]
    fn offsets_count_bytes() {
        let lexed = lex("SELECT 'ü',\n  x").unwrap();
        let last = lexed.offsets[lexed.tokens.len() - 1];
        assert_eq!(&lexed.text[last..], "x");
    }
}
