#include "os/pki.h"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>

#include "os/openssl.h"
#include "os/real.h"

namespace farshore {

std::string drain_openssl_errors() {
    std::string reasons;
    while (const unsigned long code = ERR_get_error()) {
        const char* reason = ERR_reason_error_string(code);
        if (!reasons.empty()) reasons += ", ";
        reasons += reason != nullptr ? std::string(reason) : fmt::format("error {:x}", code);
    }
    return reasons;
}

Error openssl_error(Code code, std::string what, std::source_location where) {
    const std::string reasons = drain_openssl_errors();
    return Error(code, reasons.empty() ? std::move(what) : what + ": " + reasons, {}, where);
}

BioPtr bio_of(ByteView bytes) {
    return BioPtr(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size())));
}

Result<X509Ptr> parse_certificate(std::string_view pem) {
    const BioPtr bio = bio_of(as_bytes(pem));
    X509Ptr certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (!certificate) return fail(openssl_error(Code::kMalformed, "not a certificate"));
    return certificate;
}

Result<EvpKeyPtr> parse_private_key(ByteView pem) {
    const BioPtr bio = bio_of(pem);
    // Without this, OpenSSL asks the terminal for the password of an encrypted key.
    const auto no_password = [](char*, int, int, void*) { return 0; };
    EvpKeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
    if (!key) return fail(openssl_error(Code::kMalformed, "not a private key"));
    return key;
}

Result<std::string> common_name_of(const X509_NAME* name) {
    const int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    if (at < 0 || X509_NAME_get_index_by_NID(name, NID_commonName, at) >= 0)
        return fail(Code::kMalformed, "a certificate must have exactly one common name");
    unsigned char* utf8 = nullptr;
    const int length =
        ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    if (length < 0) return fail(openssl_error(Code::kMalformed, "common name of a certificate"));
    std::string text(reinterpret_cast<char*>(utf8), static_cast<size_t>(length));
    OPENSSL_free(utf8);
    if (text.empty() || text.find('\0') != std::string::npos)
        return fail(Code::kMalformed, "the common name of a certificate is not a text");
    return text;
}

namespace {

constexpr int64_t kDaySeconds = 86'400;
constexpr int64_t kSkewSeconds = 3'600;  // how far another party's clock may lag behind ours

Result<EvpKeyPtr> make_key() {
    EvpKeyPtr key(EVP_EC_gen("P-256"));
    if (!key) return fail(openssl_error(Code::kInternal, "make a key"));
    return key;
}

Result<Secret> key_to_pem(EVP_PKEY* key) {
    const BioPtr bio(BIO_new(BIO_s_mem()));
    if (PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1)
        return fail(openssl_error(Code::kInternal, "write a key"));
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio.get(), &data);
    Secret secret(ByteView(reinterpret_cast<uint8_t*>(data), static_cast<size_t>(size)));
    OPENSSL_cleanse(data, static_cast<size_t>(size));
    return secret;
}

template <typename Object>
Result<std::string> to_pem(int (*write)(BIO*, Object*), std::remove_const_t<Object>* object) {
    const BioPtr bio(BIO_new(BIO_s_mem()));
    if (write(bio.get(), object) != 1)
        return fail(openssl_error(Code::kInternal, "write a certificate or request"));
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio.get(), &data);
    return std::string(data, static_cast<size_t>(size));
}

Status check_name(const std::string& name) {
    if (name.empty() || name.size() > kMaxPartyNameBytes ||
        !std::all_of(name.begin(), name.end(), [](char c) { return c > 0x20 && c < 0x7f; }))
        return fail(Code::kInvalidArgument,
                    fmt::format("a party's name is 1 to {} printable characters without spaces",
                                kMaxPartyNameBytes));
    return {};
}

bool could_be_host_name(const std::string& text) {
    return !text.empty() && text.size() <= 253 && std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '.' || c == '*' || c == '_';
    });
}

bool is_address(const std::string& text) {
    uint8_t raw[16];
    return ::inet_pton(AF_INET, text.c_str(), raw) == 1 ||
           ::inet_pton(AF_INET6, text.c_str(), raw) == 1;
}

Status set_name(X509_NAME* name, const std::string& common_name) {
    if (X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8,
                                   reinterpret_cast<const unsigned char*>(common_name.data()),
                                   static_cast<int>(common_name.size()), -1, 0) != 1)
        return fail(openssl_error(Code::kInternal, "set a common name"));
    return {};
}

Status set_frame(X509* certificate, const std::string& common_name, EVP_PKEY* key, TimePoint now,
                 int64_t valid_days) {
    const std::unique_ptr<BIGNUM, OpenSslFree<BN_free>> serial(BN_new());
    const time_t start = static_cast<time_t>(now.us / 1'000'000 - kSkewSeconds);
    const time_t end = static_cast<time_t>(now.us / 1'000'000 + valid_days * kDaySeconds);
    const bool done = X509_set_version(certificate, X509_VERSION_3) == 1 &&
                      BN_rand(serial.get(), 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
                      BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(certificate)) &&
                      ASN1_TIME_set(X509_getm_notBefore(certificate), start) &&
                      ASN1_TIME_set(X509_getm_notAfter(certificate), end) &&
                      X509_set_pubkey(certificate, key) == 1;
    if (!done) return fail(openssl_error(Code::kInternal, "fill in a certificate"));
    return set_name(X509_get_subject_name(certificate), common_name);
}

// Only for values that are constants of ours: the text is a small language of OpenSSL's.
Status add_extension(X509* certificate, X509* issuer, int nid, const char* value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
    const std::unique_ptr<X509_EXTENSION, OpenSslFree<X509_EXTENSION_free>> extension(
        X509V3_EXT_conf_nid(nullptr, &context, nid, value));
    if (!extension || X509_add_ext(certificate, extension.get(), -1) != 1)
        return fail(openssl_error(Code::kInternal, "extend a certificate"));
    return {};
}

Status add_alternative_names(X509* certificate, const IssueOptions& options) {
    std::vector<std::string> texts = options.alternative_names;
    if (could_be_host_name(options.common_name) || is_address(options.common_name))
        texts.push_back(options.common_name);
    std::sort(texts.begin(), texts.end());
    texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
    if (texts.empty()) return {};
    const std::unique_ptr<GENERAL_NAMES, OpenSslFree<GENERAL_NAMES_free>> names(
        GENERAL_NAMES_new());
    for (const std::string& text : texts) {
        std::unique_ptr<GENERAL_NAME, OpenSslFree<GENERAL_NAME_free>> name(GENERAL_NAME_new());
        if (is_address(text)) {
            GENERAL_NAME_set0_value(name.get(), GEN_IPADD, a2i_IPADDRESS(text.c_str()));
        } else if (could_be_host_name(text)) {
            ASN1_IA5STRING* value = ASN1_IA5STRING_new();
            ASN1_STRING_set(value, text.data(), static_cast<int>(text.size()));
            GENERAL_NAME_set0_value(name.get(), GEN_DNS, value);
        } else {
            return fail(Code::kInvalidArgument,
                        fmt::format("'{}' is neither a host name nor an address", text));
        }
        if (sk_GENERAL_NAME_push(names.get(), name.get()) <= 0)
            return fail(openssl_error(Code::kInternal, "name a certificate"));
        (void)name.release();
    }
    if (X509_add1_ext_i2d(certificate, NID_subject_alt_name, names.get(), 0, 0) != 1)
        return fail(openssl_error(Code::kInternal, "name a certificate"));
    return {};
}

Result<TimePoint> time_of(const ASN1_TIME* time) {
    tm parts{};
    if (ASN1_TIME_to_tm(time, &parts) != 1)
        return fail(openssl_error(Code::kMalformed, "time of a certificate"));
    return TimePoint{static_cast<int64_t>(::timegm(&parts)) * 1'000'000};
}

bool is_p256(EVP_PKEY* key) {
    char group[64] = {};
    size_t length = 0;
    return key != nullptr && EVP_PKEY_is_a(key, "EC") == 1 &&
           EVP_PKEY_get_group_name(key, group, sizeof group, &length) == 1 &&
           std::string_view(group, length) == "prime256v1";
}

}  // namespace

struct CertificateAuthority::Impl {
    X509Ptr certificate;
    EvpKeyPtr key;
    Secret key_pem;
};

CertificateAuthority::CertificateAuthority() : impl_(std::make_unique<Impl>()) {}
CertificateAuthority::CertificateAuthority(CertificateAuthority&&) noexcept = default;
CertificateAuthority& CertificateAuthority::operator=(CertificateAuthority&&) noexcept = default;
CertificateAuthority::~CertificateAuthority() = default;

Result<CertificateAuthority> CertificateAuthority::create(const std::string& name, TimePoint now,
                                                          int64_t valid_days) {
    FS_TRY(check_name(name));
    CertificateAuthority authority;
    FS_ASSIGN(authority.impl_->key, make_key());
    EVP_PKEY* key = authority.impl_->key.get();
    FS_ASSIGN(authority.impl_->key_pem, key_to_pem(key));
    X509Ptr certificate(X509_new());
    X509* raw = certificate.get();
    FS_TRY(set_frame(raw, name, key, now, valid_days));
    X509_set_issuer_name(raw, X509_get_subject_name(raw));
    // pathlen:0: it signs parties, never another authority.
    FS_TRY(add_extension(raw, raw, NID_basic_constraints, "critical,CA:TRUE,pathlen:0"));
    FS_TRY(add_extension(raw, raw, NID_key_usage, "critical,keyCertSign,cRLSign"));
    FS_TRY(add_extension(raw, raw, NID_subject_key_identifier, "hash"));
    if (X509_sign(raw, key, EVP_sha256()) == 0)
        return fail(openssl_error(Code::kInternal, "sign a certificate"));
    FS_ASSIGN(authority.certificate_pem_, to_pem(PEM_write_bio_X509, raw));
    authority.impl_->certificate = std::move(certificate);
    return authority;
}

Result<CertificateAuthority> CertificateAuthority::load(const Credentials& credentials) {
    FS_TRY(check_credentials(credentials));
    CertificateAuthority authority;
    FS_ASSIGN(authority.impl_->certificate, parse_certificate(credentials.certificate_pem));
    FS_ASSIGN(authority.impl_->key, parse_private_key(credentials.key_pem.reveal()));
    if (X509_check_ca(authority.impl_->certificate.get()) != 1)
        return fail(Code::kInvalidArgument, "this certificate is not that of an authority");
    authority.impl_->key_pem = credentials.key_pem;
    authority.certificate_pem_ = credentials.certificate_pem;
    return authority;
}

Credentials CertificateAuthority::credentials() const { return {certificate_pem_, impl_->key_pem}; }

Result<std::string> CertificateAuthority::issue(const std::string& request_pem,
                                                const IssueOptions& options) const {
    FS_TRY(check_name(options.common_name));
    constexpr size_t kMaxRequestBytes = 16u << 10;
    if (request_pem.size() > kMaxRequestBytes)
        return fail(Code::kTooLarge, "certificate request is too long");
    const BioPtr bio = bio_of(as_bytes(request_pem));
    const X509ReqPtr request(PEM_read_bio_X509_REQ(bio.get(), nullptr, nullptr, nullptr));
    if (!request) return fail(openssl_error(Code::kMalformed, "not a certificate request"));
    EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
    if (!is_p256(key)) {
        drain_openssl_errors();
        return fail(Code::kUnsupported, "a certificate request must be for a P-256 key");
    }
    if (X509_REQ_verify(request.get(), key) != 1) {
        drain_openssl_errors();
        return fail(Code::kUnauthenticated, "a certificate request is not signed by its own key");
    }
    const X509Ptr certificate(X509_new());
    X509* raw = certificate.get();
    X509* issuer = impl_->certificate.get();
    FS_TRY(set_frame(raw, options.common_name, key, options.now, options.valid_days));
    X509_set_issuer_name(raw, X509_get_subject_name(issuer));
    FS_TRY(add_extension(raw, issuer, NID_basic_constraints, "critical,CA:FALSE"));
    // Not critical: most versions of QEMU take a critical one only when it names keyEncipherment,
    // too, which a P-256 key must not have (RFC 8813 §3).
    FS_TRY(add_extension(raw, issuer, NID_key_usage, "digitalSignature"));
    FS_TRY(add_extension(raw, issuer, NID_ext_key_usage,
                         options.client_only ? "clientAuth" : "serverAuth,clientAuth"));
    FS_TRY(add_extension(raw, issuer, NID_subject_key_identifier, "hash"));
    FS_TRY(add_extension(raw, issuer, NID_authority_key_identifier, "keyid"));
    FS_TRY(add_alternative_names(raw, options));
    if (X509_sign(raw, impl_->key.get(), EVP_sha256()) == 0)
        return fail(openssl_error(Code::kInternal, "sign a certificate"));
    return to_pem(PEM_write_bio_X509, raw);
}

Result<Credentials> CertificateAuthority::issue_with_key(const IssueOptions& options) const {
    FS_ASSIGN(KeyAndRequest made, make_key_and_request(options.common_name));
    FS_ASSIGN(std::string certificate, issue(made.request_pem, options));
    return Credentials{std::move(certificate), std::move(made.key_pem)};
}

Result<KeyAndRequest> make_key_and_request(const std::string& common_name) {
    FS_TRY(check_name(common_name));
    FS_ASSIGN(const EvpKeyPtr key, make_key());
    KeyAndRequest made;
    FS_ASSIGN(made.key_pem, key_to_pem(key.get()));
    const X509ReqPtr request(X509_REQ_new());
    FS_TRY(set_name(X509_REQ_get_subject_name(request.get()), common_name));
    if (X509_REQ_set_pubkey(request.get(), key.get()) != 1 ||
        X509_REQ_sign(request.get(), key.get(), EVP_sha256()) == 0)
        return fail(openssl_error(Code::kInternal, "sign a certificate request"));
    FS_ASSIGN(made.request_pem, to_pem(PEM_write_bio_X509_REQ, request.get()));
    return made;
}

Result<std::string> requested_name(const std::string& request_pem) {
    const BioPtr bio = bio_of(as_bytes(request_pem));
    const X509ReqPtr request(PEM_read_bio_X509_REQ(bio.get(), nullptr, nullptr, nullptr));
    if (!request) return fail(openssl_error(Code::kMalformed, "not a certificate request"));
    return common_name_of(X509_REQ_get_subject_name(request.get()));
}

Result<CertificateInfo> inspect_certificate(std::string_view pem) {
    FS_ASSIGN(const X509Ptr certificate, parse_certificate(pem));
    CertificateInfo info;
    FS_ASSIGN(info.common_name, common_name_of(X509_get_subject_name(certificate.get())));
    FS_ASSIGN(info.not_before, time_of(X509_get0_notBefore(certificate.get())));
    FS_ASSIGN(info.not_after, time_of(X509_get0_notAfter(certificate.get())));
    unsigned length = 0;
    if (X509_digest(certificate.get(), EVP_sha256(), info.fingerprint.data(), &length) != 1 ||
        length != info.fingerprint.size())
        return fail(openssl_error(Code::kInternal, "fingerprint of a certificate"));
    info.is_authority = X509_check_ca(certificate.get()) == 1;
    const std::unique_ptr<GENERAL_NAMES, OpenSslFree<GENERAL_NAMES_free>> names(
        static_cast<GENERAL_NAMES*>(
            X509_get_ext_d2i(certificate.get(), NID_subject_alt_name, nullptr, nullptr)));
    for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
        const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
        if (name->type == GEN_DNS) {
            info.alternative_names.emplace_back(
                reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName)),
                static_cast<size_t>(ASN1_STRING_length(name->d.dNSName)));
        } else if (name->type == GEN_IPADD) {
            char text[INET6_ADDRSTRLEN] = {};
            const int family = ASN1_STRING_length(name->d.iPAddress) == 4 ? AF_INET : AF_INET6;
            if (family == AF_INET6 && ASN1_STRING_length(name->d.iPAddress) != 16) continue;
            ::inet_ntop(family, ASN1_STRING_get0_data(name->d.iPAddress), text, sizeof text);
            info.alternative_names.emplace_back(text);
        }
    }
    return info;
}

bool certificate_wants_renewal(const CertificateInfo& info, TimePoint now) {
    return info.not_after.us - now.us < (info.not_after.us - info.not_before.us) / 3;
}

Status check_credentials(const Credentials& credentials) {
    FS_ASSIGN(const X509Ptr certificate, parse_certificate(credentials.certificate_pem));
    FS_ASSIGN(const EvpKeyPtr key, parse_private_key(credentials.key_pem.reveal()));
    if (X509_check_private_key(certificate.get(), key.get()) != 1) {
        drain_openssl_errors();
        return fail(Code::kWrongKey, "this private key is not that of this certificate");
    }
    return {};
}

static Status write_pair(FileSystem& files, const std::string& path,
                         const Credentials& credentials) {
    FS_TRY(write_file_durably(files, path + ".key", credentials.key_pem.reveal()));
    return write_file_durably(files, path + ".crt", as_bytes(credentials.certificate_pem),
                              FileAccess::kPublic);
}

Status save_credentials(FileSystem& files, const std::string& path_without_suffix,
                        const Credentials& credentials) {
    FS_TRY(check_credentials(credentials));
    const std::string next = path_without_suffix + ".next";
    FS_TRY(write_pair(files, next, credentials));
    FS_TRY(write_pair(files, path_without_suffix, credentials));
    for (const char* suffix : {".key", ".crt"}) FS_TRY(files.remove(next + suffix));
    return {};
}

static Result<Credentials> load_pair(FileSystem& files, const std::string& path_without_suffix) {
    constexpr size_t kMaxPemBytes = 256u << 10;
    Credentials credentials;
    FS_ASSIGN(const Bytes certificate,
              read_whole_file(files, path_without_suffix + ".crt", kMaxPemBytes));
    credentials.certificate_pem = to_text(certificate);
    FS_ASSIGN(Bytes key, read_whole_file(files, path_without_suffix + ".key", kMaxPemBytes));
    credentials.key_pem = Secret(std::move(key));
    if (auto good = check_credentials(credentials); !good)
        return fail(good.error().with_context(path_without_suffix));
    return credentials;
}

Result<Credentials> load_credentials(FileSystem& files, const std::string& path_without_suffix) {
    auto kept = load_pair(files, path_without_suffix);
    if (kept) return kept;
    const Code code = kept.error().code();
    if (code != Code::kWrongKey && code != Code::kNotFound) return kept;
    auto next = load_pair(files, path_without_suffix + ".next");
    return next ? next : kept;
}

}  // namespace farshore
