#include "os/pki.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/x509v3.h>

#include "os/openssl.h"
#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {
namespace {

using ::testing::UnorderedElementsAre;

constexpr TimePoint kNow{int64_t{1'750'000'000} * 1'000'000};
constexpr int64_t kDayUs = int64_t{86'400} * 1'000'000;

Code code_of(const auto& result) {
    EXPECT_FALSE(result);
    return result ? Code::kInternal : result.error().code();
}

TEST(PkiTest, TheAuthorityDecidesOnTheNameAndThePlaces) {
    auto authority = CertificateAuthority::create("vault-ca", kNow).value();
    auto made = make_key_and_request("i-am-the-vault").value();
    IssueOptions options;
    options.common_name = "agent-1";
    options.alternative_names = {"10.0.0.1", "::1", "host.example"};
    options.now = kNow;
    options.valid_days = 30;
    auto pem = authority.issue(made.request_pem, options);
    ASSERT_TRUE(pem) << pem.error().to_string();
    auto info = inspect_certificate(*pem).value();
    EXPECT_EQ(info.common_name, "agent-1");
    EXPECT_THAT(info.alternative_names,
                UnorderedElementsAre("10.0.0.1", "::1", "host.example", "agent-1"));
    EXPECT_EQ(info.not_after.us, kNow.us + 30 * kDayUs);
    EXPECT_LT(info.not_before.us, kNow.us) << "a party whose clock lags must accept it";
    EXPECT_FALSE(info.is_authority);
    EXPECT_EQ(info.fingerprint_hex().size(), 64u);
    EXPECT_TRUE(check_credentials({*pem, made.key_pem}));
    EXPECT_TRUE(inspect_certificate(authority.certificate_pem())->is_authority);
    EXPECT_FALSE(certificate_wants_renewal(info, kNow));
    EXPECT_TRUE(certificate_wants_renewal(info, {kNow.us + 21 * kDayUs}));
}

// Broken if QEMU refused its own certificate before it speaks to us.
TEST(PkiTest, KeyUsageIsSuchThatEveryQemuTakesIt) {
    auto authority = CertificateAuthority::create("vault-ca", kNow).value();
    const auto own = authority.issue_with_key({.common_name = "qemu-host", .now = kNow}).value();
    const auto certificate = parse_certificate(own.certificate_pem).value();
    EXPECT_EQ(X509_get_key_usage(certificate.get()), uint32_t{KU_DIGITAL_SIGNATURE});
    const int at = X509_get_ext_by_NID(certificate.get(), NID_key_usage, -1);
    EXPECT_EQ(X509_EXTENSION_get_critical(X509_get_ext(certificate.get(), at)), 0);
}

TEST(PkiTest, BadRequestsAndNamesAreRefusedByName) {
    auto authority = CertificateAuthority::create("vault-ca", kNow).value();
    const KeyAndRequest made = make_key_and_request("a").value();
    const std::string& request = made.request_pem;
    IssueOptions options;
    options.common_name = "a";
    options.now = kNow;
    EXPECT_EQ(code_of(authority.issue("garbage", options)), Code::kMalformed);
    EXPECT_EQ(code_of(authority.issue("", options)), Code::kMalformed);
    EXPECT_EQ(code_of(authority.issue(std::string(1 << 20, 'x'), options)), Code::kTooLarge);
    for (const std::string& name :
         {std::string(), std::string("a b"), std::string("a\0b", 3), std::string(65, 'a')}) {
        options.common_name = name;
        EXPECT_EQ(code_of(authority.issue(request, options)), Code::kInvalidArgument);
    }
    options.common_name = "a";
    options.alternative_names = {"evil,IP:1.2.3.4"};
    EXPECT_EQ(code_of(authority.issue(request, options)), Code::kInvalidArgument);
    // A bit flipped anywhere in the request: never a certificate for a key that nobody proved.
    options.alternative_names = {};
    const size_t body = request.find('\n') + 1;
    for (size_t at = body; at < request.size() - 30; at += 7) {
        std::string damaged = request;
        damaged[at] = damaged[at] == 'A' ? 'B' : 'A';
        if (damaged == request) continue;
        // Some characters at the end of Base64 have bits that mean nothing.
        if (auto issued = authority.issue(damaged, options))
            EXPECT_TRUE(check_credentials({*issued, made.key_pem})) << "at " << at;
    }
}

TEST(PkiTest, CredentialsSurviveTheDiskAndTheKeyIsPrivate) {
    TestDirectory directory;
    PosixFileSystem files;
    auto authority = CertificateAuthority::create("ca", kNow).value();
    ASSERT_TRUE(save_credentials(files, directory / "ca", authority.credentials()));
    auto again = CertificateAuthority::load(load_credentials(files, directory / "ca").value());
    ASSERT_TRUE(again) << again.error().to_string();
    IssueOptions options;
    options.common_name = "x";
    options.now = kNow;
    auto party = again->issue_with_key(options).value();
    ASSERT_TRUE(save_credentials(files, directory / "x", party));
    using std::filesystem::perms;
    EXPECT_EQ(std::filesystem::status(directory / "x.key").permissions(),
              perms::owner_read | perms::owner_write);
    EXPECT_EQ(code_of(CertificateAuthority::load(party)), Code::kInvalidArgument);
    // Somebody mixed up two files.
    auto other = again->issue_with_key(options).value();
    ASSERT_TRUE(write_file_durably(files, directory / "x.key", other.key_pem.reveal()));
    EXPECT_EQ(code_of(load_credentials(files, directory / "x")), Code::kWrongKey);
    ASSERT_TRUE(write_file_durably(files, directory / "x.key", as_bytes("junk")));
    EXPECT_EQ(code_of(load_credentials(files, directory / "x")), Code::kMalformed);
    EXPECT_EQ(code_of(load_credentials(files, directory / "y")), Code::kNotFound);
}

// Broken if a renewal that a crash cut short left a party without credentials.
TEST(PkiTest, ARenewalThatIsCutShortLeavesTheOldOrTheNew) {
    TestDirectory directory;
    PosixFileSystem files;
    auto authority = CertificateAuthority::create("ca", kNow).value();
    IssueOptions options;
    options.common_name = "x";
    options.now = kNow;
    const auto old = authority.issue_with_key(options).value();
    const auto fresh = authority.issue_with_key(options).value();
    const std::string path = directory / "x";
    const auto write = [&](const char* name, const Credentials& from, bool key) {
        ASSERT_TRUE(write_file_durably(
            files, path + name, key ? from.key_pem.reveal() : as_bytes(from.certificate_pem)));
    };
    const auto loaded = [&] {
        auto credentials = load_credentials(files, path);
        EXPECT_TRUE(credentials) << credentials.error().to_string();
        return credentials ? credentials->certificate_pem : std::string();
    };
    ASSERT_TRUE(save_credentials(files, path, old));
    EXPECT_FALSE(*files.exists(path + ".next.key"));
    write(".next.key", fresh, true);
    EXPECT_EQ(loaded(), old.certificate_pem);
    write(".next.crt", fresh, false);
    EXPECT_EQ(loaded(), old.certificate_pem);
    write(".key", fresh, true);
    EXPECT_EQ(loaded(), fresh.certificate_pem) << "the old key is gone";
    write(".crt", fresh, false);
    EXPECT_EQ(loaded(), fresh.certificate_pem);
    ASSERT_TRUE(save_credentials(files, path, fresh));
    EXPECT_FALSE(*files.exists(path + ".next.crt"));
}

}  // namespace
}  // namespace farshore
