#include "os/tls_context.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

namespace farshore {
namespace {

Result<SslCtxPtr> make_ssl_context(const std::string& authority_pem,
                                   const std::optional<Credentials>& credentials) {
    SslCtxPtr context(SSL_CTX_new(TLS_method()));
    SSL_CTX* raw = context.get();
    if (raw == nullptr) return fail(openssl_error(Code::kInternal, "set up TLS"));
    SSL_CTX_set_min_proto_version(raw, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(raw, "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256");
    // No resumption: every connection shows its certificates again.
    SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(raw, 0);
    SSL_CTX_set_options(
        raw, SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(raw, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    FS_ASSIGN(const X509Ptr authority, parse_certificate(authority_pem));
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(raw), authority.get()) != 1 ||
        SSL_CTX_add_client_CA(raw, authority.get()) != 1)
        return fail(openssl_error(Code::kInternal, "trust the authority"));
    SSL_CTX_set_verify_depth(raw, 2);
    if (credentials) {
        FS_TRY(check_credentials(*credentials));
        const BioPtr bio = bio_of(as_bytes(credentials->certificate_pem));
        const X509Ptr own(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
        FS_ASSIGN(const EvpKeyPtr key, parse_private_key(credentials->key_pem.reveal()));
        if (!own || SSL_CTX_use_certificate(raw, own.get()) != 1 ||
            SSL_CTX_use_PrivateKey(raw, key.get()) != 1)
            return fail(openssl_error(Code::kWrongKey, "use our certificate"));
        while (X509* link = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr))
            if (SSL_CTX_add0_chain_cert(raw, link) != 1) X509_free(link);
        ERR_clear_error();  // the end of the text counts as an error
    }
    return context;
}

}  // namespace

TlsContext::TlsContext() : impl_(std::make_unique<Impl>()) {}
TlsContext::~TlsContext() = default;

Result<std::shared_ptr<TlsContext>> TlsContext::make(
    const std::string& authority_pem, const std::optional<Credentials>& credentials) {
    std::shared_ptr<TlsContext> made(new TlsContext);
    FS_TRY(made->reload(authority_pem, credentials));
    return made;
}

Status TlsContext::reload(const std::string& authority_pem,
                          const std::optional<Credentials>& credentials) {
    FS_ASSIGN(SslCtxPtr context, make_ssl_context(authority_pem, credentials));
    TimePoint until;
    if (credentials) {
        FS_ASSIGN(const CertificateInfo own, inspect_certificate(credentials->certificate_pem));
        until = own.not_after;
    }
    std::lock_guard lock(impl_->mutex);
    impl_->certificate_until = until;
    impl_->context = std::move(context);
    impl_->has_certificate = credentials.has_value();
    return {};
}

TimePoint TlsContext::certificate_until() const {
    const std::lock_guard lock(impl_->mutex);
    return impl_->certificate_until;
}

}  // namespace farshore
