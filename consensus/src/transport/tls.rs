//! This node's certificate and key, and whom they trust.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use baton_runbooks::model::NodeId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::pki::days_until;

/// The certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not PEM of the kind expected.
    #[error("{} is not a usable PEM file", file.display())]
    Pem {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate is not this node's.
    #[error("{} is for {found}, but this node is {me}", file.display())]
    Name {
        /// The certificate's file.
        file: PathBuf,
        /// Its names.
        found: String,
        /// This node.
        me: NodeId,
    },
    /// Certificate, key and authority do not fit together.
    #[error("certificate, key and authority do not fit together")]
    Unfit {
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The certificate is another authority's, or not valid at this moment.
    #[error("{} is not signed by {}, or not for this use and time", file.display(), ca.display())]
    Unsigned {
        /// The certificate's file.
        file: PathBuf,
        /// The authority's.
        ca: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The authority's file holds none.
    #[error("{} has no usable authority", file.display())]
    NoAuthority {
        /// Which.
        file: PathBuf,
    },
}

/// This node's side of every link. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: String,
    me: NodeId,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    ends: Option<Ends>,
}

/// When what this node greets with ends, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Its own certificate.
    pub own: i64,
    /// The authority that has signed it. While two of the same name are in the file, the first that ends counts.
    pub authority: i64,
}

/// Whole days until the certificates end that this node uses, negative once they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaysLeft {
    /// Of its own.
    pub own: i64,
    /// Of the authority that has signed it. While two of the same name are in the file, the first that ends counts.
    pub authority: i64,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("cluster", &self.inner.cluster).field("me", &self.inner.me).finish()
    }
}

impl Tls {
    /// Reads the authority, this node's certificate and its key.
    ///
    /// # Errors
    /// See [`TlsError`]; a certificate of another node is refused here, not at the first link.
    pub fn load(
        ca: &Path,
        cert: &Path,
        key: &Path,
        cluster: impl Into<String>,
        me: NodeId,
    ) -> Result<Self, TlsError> {
        let authorities = certificates(ca)?;
        let roots = authority(ca)?;
        let chain = certificates(cert)?;
        let names = chain.first().map(dns_names).unwrap_or_default();
        if names != [me.as_str()] {
            return Err(TlsError::Name { file: cert.to_owned(), found: names.join(", "), me });
        }
        let ends = ends(&chain, &authorities);
        let pem = |source| TlsError::Pem { file: key.to_owned(), source };
        let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(pem)?;
        let (client, server) = configs(roots, chain, key).map_err(|source| TlsError::Unfit { source })?;
        Ok(Self { inner: Arc::new(Inner { cluster: cluster.into(), me, client, server, ends }) })
    }

    /// Whether a link with these files would come about with a node that has the same authority: what [`Tls::load`] looks
    /// at, and the signature, which otherwise the other side sees first.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn check(ca: &Path, cert: &Path, key: &Path, me: NodeId) -> Result<(), TlsError> {
        Self::load(ca, cert, key, "", me.clone())?;
        let unsigned = |source| TlsError::Unsigned { file: cert.to_owned(), ca: ca.to_owned(), source };
        let chain = certificates(cert)?;
        let Some((own, between)) = chain.split_first() else {
            return Err(TlsError::Name { file: cert.to_owned(), found: String::new(), me });
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(authority(ca)?, provider)
            .build()
            .map_err(|error| unsigned(rustls::Error::General(error.to_string())))?;
        let name = ServerName::try_from(me.as_str().to_owned())
            .map_err(|error| unsigned(rustls::Error::General(error.to_string())))?;
        verifier.verify_server_cert(own, between, &name, &[], UnixTime::now()).map(|_| ()).map_err(unsigned)
    }

    /// Name of the cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.inner.cluster
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> &NodeId {
        &self.inner.me
    }

    /// Days until the certificates end that were read when this was made: what is in use, whatever the files hold by now.
    /// `None`: they cannot be understood.
    #[must_use]
    pub fn days_left(&self) -> Option<DaysLeft> {
        let Ends { own, authority } = self.inner.ends?;
        Some(DaysLeft { own: days_until(own), authority: days_until(authority) })
    }

    /// When the certificates end that were read when this was made. `None`: they cannot be understood.
    #[must_use]
    pub fn ends(&self) -> Option<Ends> {
        self.inner.ends
    }

    pub(super) fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.inner.client))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.inner.server))
    }
}

fn configs(
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<(Arc<ClientConfig>, Arc<ServerConfig>), rustls::Error> {
    // The provider is named, since more than one could be linked into the same program.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.clone(), key.clone_key())?;
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    Ok((Arc::new(client), Arc::new(server)))
}

/// When the chain ends, and when the authority ends that has signed it.
fn ends(chain: &[CertificateDer<'_>], authorities: &[CertificateDer<'_>]) -> Option<Ends> {
    let parse = |der| x509_parser::parse_x509_certificate(der).ok().map(|(_, cert)| cert);
    let end = |cert: &X509Certificate<'_>| cert.validity().not_after.timestamp();
    let chain = chain.iter().map(|der| parse(der.as_ref())).collect::<Option<Vec<_>>>()?;
    let authorities = authorities.iter().filter_map(|der| parse(der.as_ref())).collect::<Vec<_>>();
    let issuer = chain.last()?.issuer();
    let signers = authorities.iter().filter(|one| one.subject() == issuer);
    Some(Ends { own: chain.iter().map(end).min()?, authority: signers.map(end).min()? })
}

fn authority(ca: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(ca)? {
        roots.add(root).map_err(|_| TlsError::NoAuthority { file: ca.to_owned() })?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoAuthority { file: ca.to_owned() });
    }
    Ok(Arc::new(roots))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |source| TlsError::Pem { file: file.to_owned(), source };
    CertificateDer::pem_slice_iter(&read(file)?).collect::<Result<Vec<_>, _>>().map_err(pem)
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|source| TlsError::Read { file: file.to_owned(), source })
}

/// The DNS names of a certificate.
pub(super) fn dns_names(cert: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, cert)) = x509_parser::parse_x509_certificate(cert) else { return Vec::new() };
    let Ok(Some(names)) = cert.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(dns).collect()
}
