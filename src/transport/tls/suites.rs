//! The cipher suites of TLS 1.3, with keys that take little room while nothing is said.
//!
//! An expanded AES-GCM key takes 640 bytes, and each direction has one. Most connections of this
//! server are idle, and for those that are not the expansion takes a tenth of a microsecond, which
//! is less than it takes to fetch 640 bytes from beyond the cache. So a connection keeps the 40
//! bytes that were agreed on, and expands them for each record. Everything but that is the crypto
//! library's and rustls': sealing, opening, nonces, what is authenticated, and the key schedule.

use std::sync::LazyLock;

use aws_lc_rs::aead;
use rustls::{
    CipherSuite, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion,
    SupportedCipherSuite, Tls13CipherSuite,
    crypto::{
        CipherSuiteCommon, CryptoProvider,
        cipher::{
            AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter,
            MessageEncrypter, Nonce, OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload,
            Tls13AeadAlgorithm, UnsupportedOperationError, make_tls13_aad,
        },
    },
};

/// The provider's own suites, those of TLS 1.3 with small keys.
pub fn suites(provider: &CryptoProvider) -> Vec<SupportedCipherSuite> {
    let with_small_keys = |suite: &SupportedCipherSuite| match suite {
        SupportedCipherSuite::Tls13(_) => {
            let mut small = SMALL.iter().copied();
            small.find(|small| small.suite() == suite.suite())
        }
        other => Some(*other),
    };
    let suites = provider.cipher_suites.iter();
    suites.filter_map(with_small_keys).collect()
}

/// rustls asks for suites that live for ever.
static SMALL: LazyLock<Vec<SupportedCipherSuite>> = LazyLock::new(|| {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let suites = provider.cipher_suites.iter();
    suites
        .filter_map(SupportedCipherSuite::tls13)
        .filter_map(small)
        .collect()
});

/// The same suite with small keys.
fn small(suite: &Tls13CipherSuite) -> Option<SupportedCipherSuite> {
    let aead_alg: &dyn Tls13AeadAlgorithm = match suite.common.suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => &Small(&aead::AES_128_GCM),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => &Small(&aead::AES_256_GCM),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => &Small(&aead::CHACHA20_POLY1305),
        _ => return None,
    };
    let small = Tls13CipherSuite {
        common: CipherSuiteCommon { ..suite.common },
        hkdf_provider: suite.hkdf_provider,
        aead_alg,
        quic: None,
    };
    Some(SupportedCipherSuite::Tls13(Box::leak(Box::new(small))))
}

/// An algorithm that makes small keys.
struct Small(&'static aead::Algorithm);

/// One direction of one connection. The key is wiped when it is dropped.
struct Half {
    algorithm: &'static aead::Algorithm,
    key: AeadKey,
    iv: Iv,
}

impl Tls13AeadAlgorithm for Small {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(self.half(key, iv))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(self.half(key, iv))
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    /// For handing connections to the kernel, which is not done here.
    fn extract_keys(
        &self,
        _key: AeadKey,
        _iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

impl Small {
    fn half(&self, key: AeadKey, iv: Iv) -> Half {
        Half {
            algorithm: self.0,
            key,
            iv,
        }
    }
}

impl Half {
    fn expand(&self) -> Result<aead::LessSafeKey, aws_lc_rs::error::Unspecified> {
        aead::UnboundKey::new(self.algorithm, self.key.as_ref()).map(aead::LessSafeKey::new)
    }

    /// The nonce of a record (RFC 8446, 5.3). rustls counts the records, and no number comes twice
    /// with one key.
    fn nonce(&self, number: u64) -> aead::Nonce {
        aead::Nonce::assume_unique_for_key(Nonce::new(&self.iv, number).0)
    }
}

impl MessageEncrypter for Half {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        number: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let length = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(length);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&[u8::from(message.typ)]);
        let aad = aead::Aad::from(make_tls13_aad(length));
        self.expand()
            .and_then(|key| key.seal_in_place_append_tag(self.nonce(number), aad, &mut payload))
            .map_err(|_| Error::EncryptError)?;
        // RFC 8446, 5.1: sealed records of all kinds look like these.
        Ok(OutboundOpaqueMessage::new(
            ContentType::ApplicationData,
            ProtocolVersion::TLSv1_2,
            payload,
        ))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        // The kind of the record is sealed with it.
        payload_len + 1 + self.algorithm.tag_len()
    }
}

impl MessageDecrypter for Half {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        number: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let payload = &mut message.payload;
        if payload.len() < self.algorithm.tag_len() {
            return Err(Error::DecryptError);
        }
        let aad = aead::Aad::from(make_tls13_aad(payload.len()));
        let length = self
            .expand()
            .and_then(|key| {
                let opened = key.open_in_place(self.nonce(number), aad, payload);
                opened.map(|plain| plain.len())
            })
            .map_err(|_| Error::DecryptError)?;
        payload.truncate(length);
        message.into_tls13_unpadded_message()
    }
}
