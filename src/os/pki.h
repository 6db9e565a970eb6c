// The certificates with which the parts of Farshore know each other: one certificate authority per
// vault, ECDSA P-256, SHA-256. Each party makes its own key, which never leaves it; the authority
// signs a request and alone decides on the name.
//
// Plain functions and values; any thread. PEM everywhere. Times are passed in.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/seams.h"
#include "base/secret.h"
#include "base/types.h"

namespace farshore {

// A certificate (with the chain behind it, if any) and its private key.
struct Credentials {
    std::string certificate_pem;
    Secret key_pem;
};

struct KeyAndRequest {
    Secret key_pem;
    std::string request_pem;
};

struct CertificateInfo {
    std::string common_name;
    TimePoint not_before;
    TimePoint not_after;
    Digest fingerprint;                          // SHA-256 of the DER
    std::vector<std::string> alternative_names;  // DNS names and addresses
    bool is_authority = false;

    std::string fingerprint_hex() const { return to_hex(fingerprint); }
};

struct IssueOptions {
    // The party's name: what peer_name() will say. At most 64 printable ASCII characters.
    std::string common_name;
    // DNS names and IP addresses under which it is reached. The common name is added by itself
    // when it could be a host's.
    std::vector<std::string> alternative_names;
    TimePoint now;
    int64_t valid_days = 365;
    // It proves a client, never a server: no one that dials takes it for whom he dialled.
    bool client_only = false;
};

inline constexpr size_t kMaxPartyNameBytes = 64;

class CertificateAuthority {
  public:
    // A new one with a key of its own. Valid from an hour before `now`, for clocks that differ.
    static Result<CertificateAuthority> create(const std::string& name, TimePoint now,
                                               int64_t valid_days = 3650);
    // kMalformed; kWrongKey when the two do not belong together.
    static Result<CertificateAuthority> load(const Credentials& credentials);

    CertificateAuthority(CertificateAuthority&&) noexcept;
    CertificateAuthority& operator=(CertificateAuthority&&) noexcept;
    ~CertificateAuthority();

    const std::string& certificate_pem() const { return certificate_pem_; }
    Credentials credentials() const;
    // A certificate for server and client use. Of the request only the key is taken, after its
    // signature proved that the asker has it. kMalformed, kUnauthenticated (signature),
    // kUnsupported (not P-256), kInvalidArgument (name).
    Result<std::string> issue(const std::string& request_pem, const IssueOptions& options) const;
    // For a party in our own process.
    Result<Credentials> issue_with_key(const IssueOptions& options) const;

  private:
    struct Impl;
    CertificateAuthority();
    std::unique_ptr<Impl> impl_;
    std::string certificate_pem_;
};

// A new P-256 key and a request for a certificate with this name (which the authority may ignore).
Result<KeyAndRequest> make_key_and_request(const std::string& common_name);
// The name that a request asks for. kMalformed.
Result<std::string> requested_name(const std::string& request_pem);

// Of the first certificate in the text.
Result<CertificateInfo> inspect_certificate(std::string_view pem);
// Whether less than a third of its life is left: time to get a new one.
bool certificate_wants_renewal(const CertificateInfo& info, TimePoint now);

// Reads and writes NAME.crt (0644) and NAME.key (0600). Reading checks that they belong together:
// kWrongKey. A write that is cut short leaves either the old ones or the new ones to be read: both
// are written as NAME.next first, which is read when NAME's do not belong together.
Status save_credentials(FileSystem& files, const std::string& path_without_suffix,
                        const Credentials& credentials);
Result<Credentials> load_credentials(FileSystem& files, const std::string& path_without_suffix);
Status check_credentials(const Credentials& credentials);

}  // namespace farshore
