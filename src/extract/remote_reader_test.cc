#include "extract/remote_reader.h"

#include <gtest/gtest.h>

namespace farshore::extraction {
namespace {

RemoteSettings example() {
    RemoteSettings settings;
    settings.access_key_id =
        "AKIA"
        "IOSFODNN7EXAMPLE";
    settings.secret_access_key =
        Secret(to_bytes(as_bytes("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")));
    return settings;
}

const char* const kNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

// Broken if no S3 would let us in. The requests and signatures of AWS's own documentation,
// "Signature Calculations for the Authorization Header".
TEST(RemoteReader, SignsAsTheExamplesOfS3) {
    const Fields common{{"host", "examplebucket.s3.amazonaws.com"},
                        {"x-amz-content-sha256", kNothing},
                        {"x-amz-date", "20130524T000000Z"}};
    Fields ranged = common;
    ranged["range"] = "bytes=0-9";
    EXPECT_EQ(s3_authorization(example(), "/test.txt", {}, ranged),
              "AWS4-HMAC-SHA256 Credential=AKIA"
              "IOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
              "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
              "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    EXPECT_TRUE(s3_authorization(example(), "/", {{"max-keys", "2"}, {"prefix", "J"}}, common)
                    .ends_with("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"));
}

// Broken if another place than the named one is read.
TEST(RemoteReader, LocationsAreTakenApart) {
    auto s3 = parse_remote_location("s3://bucket/some/where/");
    ASSERT_TRUE(s3);
    EXPECT_FALSE(s3->azure);
    EXPECT_EQ(s3->container, "bucket");
    EXPECT_EQ(s3->prefix, "some/where/");
    auto azure = parse_remote_location("azure://account/container");
    ASSERT_TRUE(azure);
    EXPECT_TRUE(azure->azure);
    EXPECT_EQ(azure->account, "account");
    EXPECT_EQ(azure->container, "container");
    EXPECT_EQ(azure->prefix, "");
    for (const char* bad : {"s3://", "s3:///x", "azure://account", "azure://account/", "gs://b",
                            "s3://bu cket", "s3://bucket/a?b"})
        EXPECT_FALSE(parse_remote_location(bad)) << bad;
}

// Broken if the rest of a long list is left out, or half an answer is taken for a whole one.
TEST(RemoteReader, ListsAreReadWhole) {
    auto s3 = parse_s3_page(
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>true</IsTruncated>"
        "<Contents><Key>items/a/item</Key></Contents><CommonPrefixes><Prefix>items/b/</Prefix>"
        "</CommonPrefixes><NextContinuationToken>t&amp;x</NextContinuationToken></"
        "ListBucketResult>");
    ASSERT_TRUE(s3);
    EXPECT_EQ(s3->names, std::vector<std::string>{"items/a/item"});
    EXPECT_EQ(s3->prefixes, std::vector<std::string>{"items/b/"});
    EXPECT_EQ(s3->next, "t&x");
    auto azure = parse_azure_page(
        "\xef\xbb\xbf<?xml "
        "version=\"1.0\"?><EnumerationResults><Blobs><Blob><Name>x/1</Name></Blob>"
        "<BlobPrefix><Name>x/y/</Name></BlobPrefix></Blobs><NextMarker/></EnumerationResults>");
    ASSERT_TRUE(azure);
    EXPECT_EQ(azure->names, std::vector<std::string>{"x/1"});
    EXPECT_EQ(azure->prefixes, std::vector<std::string>{"x/y/"});
    EXPECT_EQ(azure->next, "");
    for (const char* bad :
         {"", "<html/>", "<ListBucketResult/>", "<EnumerationResults><Blobs/></EnumerationResults>",
          "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"}) {
        EXPECT_FALSE(parse_s3_page(bad)) << bad;
        EXPECT_FALSE(parse_azure_page(bad)) << bad;
    }
}

}  // namespace
}  // namespace farshore::extraction
