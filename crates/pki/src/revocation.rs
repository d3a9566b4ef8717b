//! Revocation lists, of which several may be of one issuer.
//!
//! webpki checks a certificate against the first list whose issuer has the name of the
//! certificate's issuer, and ignores the others (`RevocationOptions` in its
//! `crl/mod.rs`). But a file may have several: a list that was appended instead of
//! replaced, or the lists of two authorities of the same name while their keys change
//! over. So a certificate is verified against each of them: one that is revoked by any
//! list with a valid signature is revoked, and otherwise one list must cover it. An
//! older list can therefore only add revocations, whichever list is the newest.

use rustls::{CertificateError, Error};
use rustls_pki_types::CertificateRevocationListDer;
use std::collections::BTreeMap;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

type List = CertificateRevocationListDer<'static>;

/// A certificate is verified once for each selection: a bound for the time of a
/// handshake, far above the number of lists that an orderly file has.
const MAX_SELECTIONS: usize = 64;

/// Every way to select one list of each issuer; without any list, one empty selection.
#[derive(Debug, Clone)]
pub(crate) struct RevocationLists {
    pub selections: Vec<Vec<List>>,
}

/// Why revocation lists can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationListError {
    /// Also a delta list (RFC 5280, 5.2.4), which is incomplete without its base, and an
    /// indirect one.
    #[error("revocation list {number} of the file is not a complete, direct list: {source}")]
    Unsupported {
        /// Its position, from 1.
        number: usize,
        source: webpki::Error,
    },
    #[error("the file has too many revocation lists of the same issuers; keep the newest of each")]
    TooMany,
}

impl RevocationLists {
    /// Groups the lists by their issuers.
    ///
    /// # Errors
    /// A list can't be used, or there are too many.
    pub fn new(lists: Vec<List>) -> Result<Self, RevocationListError> {
        let mut issuers: BTreeMap<Vec<u8>, Vec<List>> = BTreeMap::new();
        for (index, list) in lists.into_iter().enumerate() {
            let unsupported = |source| RevocationListError::Unsupported {
                number: index + 1,
                source,
            };
            OwnedCertRevocationList::from_der(&list).map_err(unsupported)?;
            let (_, parsed) = CertificateRevocationList::from_der(&list)
                .map_err(|_| unsupported(webpki::Error::BadDer))?;
            let of_issuer = issuers
                .entry(parsed.issuer().as_raw().to_vec())
                .or_default();
            if !of_issuer.contains(&list) {
                of_issuer.push(list);
            }
        }
        let mut selections = vec![Vec::new()];
        for of_issuer in issuers.into_values() {
            if selections.len() * of_issuer.len() > MAX_SELECTIONS {
                return Err(RevocationListError::TooMany);
            }
            selections = selections
                .iter()
                .flat_map(|selection| {
                    of_issuer.iter().map(|list| {
                        let mut selection = selection.clone();
                        selection.push(list.clone());
                        selection
                    })
                })
                .collect();
        }
        Ok(Self { selections })
    }

    /// The lists of each selection, parsed.
    pub fn parsed(&self) -> Result<Vec<Vec<CertRevocationList<'static>>>, webpki::Error> {
        let parse = |list: &List| OwnedCertRevocationList::from_der(list).map(Into::into);
        self.selections
            .iter()
            .map(|selection| selection.iter().map(parse).collect())
            .collect()
    }
}

/// The result of all selections: a revocation counts whichever list has it; otherwise
/// one success suffices, because a list of another key verifies nothing.
pub(crate) fn joined<T>(results: impl IntoIterator<Item = Result<T, Error>>) -> Result<T, Error> {
    let revoked = Error::InvalidCertificate(CertificateError::Revoked);
    let mut joined = Err(Error::General("no revocation list was selected".to_owned()));
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Err(error) if error == revoked => return Err(error),
            Ok(verified) => joined = Ok(verified),
            Err(error) if index == 0 => joined = Err(error),
            Err(_) => {}
        }
    }
    joined
}
