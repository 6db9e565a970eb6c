// Against the worked examples of AWS's own documentation of Signature Version 4 for S3.
#include "store/s3_signature.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "codec/hash.h"

namespace farshore {
namespace {

const TimePoint kDay = from_rfc3339("2013-05-24T00:00:00Z").value();

S3Keys example_keys() {
    return {
        "AKIA"
        "IOSFODNN7EXAMPLE",
        Secret(as_bytes("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")),
        {},
        "us-east-1"};
}

std::string authorization(const S3Request& request, const S3Keys& keys) {
    for (const auto& [name, value] : s3_sign(request, keys, kDay))
        if (name == "authorization") return value;
    return {};
}

S3Request example(const char* method, const char* path, const char* body = "") {
    S3Request request;
    request.method = method;
    request.host = "examplebucket.s3.amazonaws.com";
    request.path = s3_encode_path(path);
    request.payload_sha256 = to_hex(sha256(as_bytes(body)));
    return request;
}

// Broken if no S3 server would take a request of ours.
TEST(S3Signature, IsThatOfThePublishedExamples) {
    S3Request get = example("GET", "/test.txt");
    get.headers = {{"range", "bytes=0-9"}};
    EXPECT_EQ(authorization(get, example_keys()),
              "AWS4-HMAC-SHA256 Credential=AKIA"
              "IOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
              "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
              "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");

    S3Request put = example("PUT", "/test$file.text", "Welcome to Amazon S3.");
    EXPECT_EQ(put.path, "/test%24file.text");
    put.headers = {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                   {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
    EXPECT_TRUE(authorization(put, example_keys())
                    .ends_with("Signature="
                               "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"));

    S3Request lifecycle = example("GET", "/");
    lifecycle.query = {{"lifecycle", ""}};
    EXPECT_TRUE(authorization(lifecycle, example_keys())
                    .ends_with("Signature="
                               "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"));

    S3Request list = example("GET", "/");
    list.query = {{"prefix", "J"}, {"max-keys", "2"}};
    EXPECT_TRUE(authorization(list, example_keys())
                    .ends_with("Signature="
                               "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"));
}

// Broken if temporary keys were refused: their token must be sent and signed.
TEST(S3Signature, SignsTheSessionToken) {
    S3Keys keys = example_keys();
    keys.session_token = Secret(as_bytes("token"));
    const S3Pairs sent = s3_sign(example("GET", "/x"), keys, kDay);
    EXPECT_EQ(std::ranges::count(
                  sent, std::pair<std::string, std::string>{"x-amz-security-token", "token"}),
              1);
    EXPECT_NE(sent.back().second.find(";x-amz-security-token,"), std::string::npos);
    for (const auto& [name, value] : sent)
        EXPECT_EQ(value.find("EXAMPLEKEY"), std::string::npos) << name;
}

}  // namespace
}  // namespace farshore
