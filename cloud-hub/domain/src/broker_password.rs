//! Passwords at the broker: made by the hub, kept as Mosquitto's hash of them.
//!
//! In: a password and a random salt. Out: what stands behind the user's name in Mosquitto's password file. Where the
//! randomness comes from and where the file lies is for others.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::pbkdf2;
use zeroize::Zeroizing;

/// Passwords are 256 random bits, so stretching them adds nothing; this is `mosquitto_passwd`'s own default.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(101).expect("101 is not zero");

/// Bytes of a salt, as `mosquitto_passwd` makes them.
pub const SALT_BYTES: usize = 12;

/// A password as text that needs no quoting anywhere: base64url of 256 random bits.
#[must_use]
pub fn text(secret: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(URL_SAFE_NO_PAD.encode(secret))
}

/// `$7$iterations$salt$hash`: PBKDF2 with HMAC-SHA-512.
#[must_use]
pub fn hash(password: &str, salt: &[u8; SALT_BYTES]) -> String {
    let mut hash = [0_u8; 64];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, ITERATIONS, salt, password.as_bytes(), &mut hash);
    format!("$7${ITERATIONS}${}${}", STANDARD.encode(salt), STANDARD.encode(hash))
}

/// One line of the password file.
#[must_use]
pub fn line(user: &str, hash: &str) -> String {
    format!("{user}:{hash}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_one_that_mosquitto_makes() {
        // `mosquitto_passwd -b` of 2.0.11 wrote this line for user and password `hub` and this salt.
        let salt: [u8; SALT_BYTES] = STANDARD.decode("02jC1auN6/ewS5y7").unwrap().try_into().unwrap();
        assert_eq!(
            line("hub", &hash("hub", &salt)),
            "hub:$7$101$02jC1auN6/ewS5y7$DOye1AjpMl9OvvEEA03jSLOTvrx0rkMOzmsgxmMeadrLn9a3TZ95I7UMECsPr9CwKKO3J4EJlr/BLIPsnky8Tg==\n"
        );
    }

    #[test]
    fn a_password_needs_no_quoting() {
        let text = text(&[0xff; 32]);
        assert_eq!(text.len(), 43);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'));
    }
}
