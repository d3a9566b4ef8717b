//! O5LOGON with the 12c verifier (PBKDF2 with HMAC-SHA-512, AES-256 in CBC).
//!
//! The server sends a random key encrypted with a hash of the password; only
//! who knows the password can decrypt it, mix it with a key of their own and
//! encrypt the password with the result. The server compares that password
//! and proves itself by encrypting a fixed text under the same key. The
//! layout is that of python-oracledb's `auth.pyx`.

use super::TnsError;
use aws_lc_rs::cipher::{
    AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::digest;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use rand::RngCore;
use std::num::NonZeroU32;

/// Bytes of an AES block and of the salt in front of what is encrypted.
const BLOCK: usize = 16;
/// Bytes of an AES-256 key and of each half of the session key.
const KEY: usize = 32;
/// Rounds for the password's key; the value Oracle uses.
const VERIFIER_ROUNDS: NonZeroU32 = NonZeroU32::new(4_096).expect("not zero");
/// Rounds for the session key; the value Oracle uses.
const SESSION_ROUNDS: NonZeroU32 = NonZeroU32::new(3).expect("not zero");
/// Flag of the pair that carries the verifier: its type, 12c.
const VERIFIER_12C: u32 = 0x4815;

/// A key, its value and its flag, as the logon's messages carry them.
pub type Pair = (&'static str, String, u32);

/// The server's half of a logon, between its two phases.
pub struct Challenge {
    password: Vec<u8>,
    known: bool,
    verifier_salt: [u8; BLOCK],
    session_salt: [u8; BLOCK],
    password_hash: [u8; KEY],
    server_half: [u8; KEY],
}

impl Challenge {
    /// A challenge for the user's password. For a user that doesn't exist it
    /// looks the same, and no password answers it.
    pub fn new(user: &str, password: Option<String>) -> Self {
        let mut random = rand::rng();
        let known = password.is_some();
        let password = password.map_or_else(
            || {
                let mut nobody = vec![0; KEY];
                random.fill_bytes(&mut nobody);
                nobody
            },
            String::into_bytes,
        );
        let user_digest = digest::digest(&digest::SHA512, user.as_bytes());
        let mut verifier_salt = [0; BLOCK];
        verifier_salt.copy_from_slice(&user_digest.as_ref()[..BLOCK]);
        let mut session_salt = [0; BLOCK];
        random.fill_bytes(&mut session_salt);
        let mut server_half = [0; KEY];
        random.fill_bytes(&mut server_half);
        let password_hash = password_hash(&password, &verifier_salt);
        Self {
            password,
            known,
            verifier_salt,
            session_salt,
            password_hash,
            server_half,
        }
    }

    /// What the client gets to see.
    pub fn pairs(&self) -> Result<Vec<Pair>, TnsError> {
        let server_half = encrypt(&self.password_hash, &self.server_half)?;
        Ok(vec![
            ("AUTH_SESSKEY", hex::encode_upper(server_half), 0),
            (
                "AUTH_VFR_DATA",
                hex::encode_upper(self.verifier_salt),
                VERIFIER_12C,
            ),
            (
                "AUTH_PBKDF2_CSK_SALT",
                hex::encode_upper(self.session_salt),
                0,
            ),
            ("AUTH_PBKDF2_VGEN_COUNT", VERIFIER_ROUNDS.to_string(), 0),
            ("AUTH_PBKDF2_SDER_COUNT", SESSION_ROUNDS.to_string(), 0),
        ])
    }

    /// Checks the client's answer. `Some` is the proof of the server to send
    /// back; `None` means a wrong password.
    pub fn verify(&self, session_key: &str, password: &str) -> Result<Option<String>, TnsError> {
        let client_half = decrypt(&self.password_hash, &unhex(session_key)?)?;
        let Some(client_half) = client_half.get(..KEY) else {
            return Err(TnsError::Malformed("a session key shorter than 32 bytes"));
        };
        let halves = [client_half, &self.server_half].concat();
        let mut shared = [0; KEY];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA512,
            SESSION_ROUNDS,
            &self.session_salt,
            hex::encode_upper(halves).as_bytes(),
            &mut shared,
        );
        let given = decrypt(&shared, &unhex(password)?)?;
        let given = given.get(BLOCK..).map(unpad).unwrap_or_default();
        if !self.known || given != self.password {
            return Ok(None);
        }
        let mut proof = vec![0; BLOCK];
        rand::rng().fill_bytes(&mut proof);
        proof.extend(b"SERVER_TO_CLIENT");
        proof.extend([BLOCK as u8; BLOCK]);
        Ok(Some(hex::encode_upper(encrypt(&shared, &proof)?)))
    }
}

fn password_hash(password: &[u8], salt: &[u8; BLOCK]) -> [u8; KEY] {
    let mut key = [0; 64];
    let speedy = [&salt[..], b"AUTH_PBKDF2_SPEEDY_KEY"].concat();
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA512,
        VERIFIER_ROUNDS,
        &speedy,
        password,
        &mut key,
    );
    let hashed = digest::digest(&digest::SHA512, &[&key[..], salt].concat());
    let mut hash = [0; KEY];
    hash.copy_from_slice(&hashed.as_ref()[..KEY]);
    hash
}

fn unhex(text: &str) -> Result<Vec<u8>, TnsError> {
    hex::decode(text).map_err(|_| TnsError::Malformed("a logon value that is not hexadecimal"))
}

/// Removes PKCS#7 padding, where there is any.
fn unpad(padded: &[u8]) -> &[u8] {
    match padded.last() {
        Some(&count) if (1..=BLOCK).contains(&usize::from(count)) => {
            &padded[..padded.len().saturating_sub(usize::from(count))]
        }
        _ => padded,
    }
}

/// AES-256-CBC from a zero vector, without padding.
fn encrypt(key: &[u8; KEY], plain: &[u8]) -> Result<Vec<u8>, TnsError> {
    let key = UnboundCipherKey::new(&AES_256, key).map_err(|_| TnsError::Crypto)?;
    let key = EncryptingKey::cbc(key).map_err(|_| TnsError::Crypto)?;
    let vector = EncryptionContext::Iv128(FixedLength::from([0; BLOCK]));
    let mut bytes = plain.to_vec();
    key.less_safe_encrypt(&mut bytes, vector)
        .map_err(|_| TnsError::Crypto)?;
    Ok(bytes)
}

fn decrypt(key: &[u8; KEY], secret: &[u8]) -> Result<Vec<u8>, TnsError> {
    let key = UnboundCipherKey::new(&AES_256, key).map_err(|_| TnsError::Crypto)?;
    let key = DecryptingKey::cbc(key).map_err(|_| TnsError::Crypto)?;
    let vector = DecryptionContext::Iv128(FixedLength::from([0; BLOCK]));
    let mut bytes = secret.to_vec();
    key.decrypt(&mut bytes, vector)
        .map_err(|_| TnsError::Crypto)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client does with a challenge.
    fn answer(pairs: &[Pair], password: &[u8]) -> (String, String, [u8; KEY]) {
        let value = |name: &str| {
            let pair = pairs.iter().find(|pair| pair.0 == name).unwrap();
            hex::decode(&pair.1).unwrap()
        };
        let salt: [u8; BLOCK] = value("AUTH_VFR_DATA").try_into().unwrap();
        let hash = password_hash(password, &salt);
        let server_half = decrypt(&hash, &value("AUTH_SESSKEY")).unwrap();
        let client_half = [7; KEY];
        let halves = [&client_half[..], &server_half].concat();
        let mut shared = [0; KEY];
        let salt = value("AUTH_PBKDF2_CSK_SALT");
        let secret = hex::encode_upper(halves);
        let method = pbkdf2::PBKDF2_HMAC_SHA512;
        pbkdf2::derive(
            method,
            SESSION_ROUNDS,
            &salt,
            secret.as_bytes(),
            &mut shared,
        );
        let mut plain = [&[9; BLOCK][..], password].concat();
        let padding = BLOCK - plain.len() % BLOCK;
        plain.extend(vec![padding as u8; padding]);
        let session_key = encrypt(&hash, &client_half).unwrap();
        let password = encrypt(&shared, &plain).unwrap();
        (
            hex::encode_upper(session_key),
            hex::encode_upper(password),
            shared,
        )
    }

    #[test]
    fn tns_logon_takes_the_right_password_alone() {
        for (stored, given, right) in [
            (Some("tiger"), "tiger", true),
            (Some("exactly16bytes!!"), "exactly16bytes!!", true),
            (Some("pässword"), "pässword", true),
            (Some("tiger"), "Tiger", false),
            (Some("tiger"), "", false),
            (None, "tiger", false),
        ] {
            let challenge = Challenge::new("SHOP", stored.map(str::to_owned));
            let (key, password, shared) = answer(&challenge.pairs().unwrap(), given.as_bytes());
            let proof = challenge.verify(&key, &password).unwrap_or(None);
            assert_eq!(proof.is_some(), right, "{stored:?} {given:?}");
            if let Some(proof) = proof {
                let plain = decrypt(&shared, &hex::decode(proof).unwrap()).unwrap();
                assert_eq!(&plain[16..32], b"SERVER_TO_CLIENT");
            }
        }
    }

    #[test]
    fn tns_aes_is_aes_256_cbc() {
        // NIST SP 800-38A has no zero vector; this is FIPS 197's AES-256
        // example, which equals CBC of one block from a zero vector.
        let key: Vec<u8> = (0..32).collect();
        let key: [u8; KEY] = key.try_into().unwrap();
        let plain = hex::decode("00112233445566778899aabbccddeeff").unwrap();
        let secret = encrypt(&key, &plain).unwrap();
        assert_eq!(hex::encode(&secret), "8ea2b7ca516745bfeafc49904b496089");
        assert_eq!(decrypt(&key, &secret).unwrap(), plain);
        assert!(matches!(decrypt(&key, &secret[1..]), Err(TnsError::Crypto)));
    }
}
