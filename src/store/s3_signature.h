// Signing of S3 requests: AWS Signature Version 4, header form
// (docs.aws.amazon.com, "Signature Calculations for the Authorization Header"). Pure: the time is
// an argument. Any thread may call.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/secret.h"
#include "base/types.h"

namespace farshore {

struct S3Keys {
    std::string access_key_id;
    Secret secret_access_key;
    Secret session_token;  // empty: none
    std::string region;
};

using S3Pairs = std::vector<std::pair<std::string, std::string>>;

struct S3Request {
    std::string method;
    std::string host;  // as the Host header says it: with the port unless it is the scheme's
    std::string path;  // encoded by s3_encode_path; begins with '/'
    S3Pairs query;     // plain, in any order
    S3Pairs headers;   // lower-case names; all of them are signed. Without host and x-amz-date
    std::string payload_sha256;  // hexadecimal
};

// The headers to send: those given, x-amz-date, x-amz-content-sha256, x-amz-security-token where
// there is one, and authorization. Without host.
S3Pairs s3_sign(const S3Request& request, const S3Keys& keys, TimePoint now);

// All but letters, digits, "-._~" and '/'.
std::string s3_encode_path(std::string_view path);
// "a=1&b=2", encoded, in the order that is signed; "" without parameters.
std::string s3_encode_query(const S3Pairs& query);

}  // namespace farshore
