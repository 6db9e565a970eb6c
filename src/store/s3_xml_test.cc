// S3's answers, as servers send them and as they must not be taken.
#include "store/s3_xml.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

// Broken if an error were shown without the server's words, or could forge lines of a log.
TEST(S3Xml, ErrorsHaveTheServersWordsOnOneLine) {
    auto error = parse_s3_error(
        "<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code><Message>no\nentry&#10;here "
        "</Message><Region>eu-west-1</Region><RequestId>1</RequestId></Error>");
    ASSERT_TRUE(error) << error.error().to_string();
    EXPECT_EQ(error->code, "AccessDenied");
    EXPECT_EQ(error->message, "no entry here ");
    EXPECT_EQ(error->region, "eu-west-1");
    auto longer = parse_s3_error("<Error><Code>X</Code><Message>" + std::string(5000, 'm') +
                                 "</Message></Error>");
    ASSERT_TRUE(longer);
    EXPECT_EQ(longer->message.size(), 300u);
    for (const char* other : {"", "<html><body>404</body></html>", "<Error/>", "<Error><Code>x",
                              "{\"error\": 1}", "<a><Error><Code>x</Code></Error></a>"})
        EXPECT_FALSE(parse_s3_error(other)) << other;
}

// Broken if a page of a listing that is damaged or cut passed for a whole one.
TEST(S3Xml, ListingsAreWholeOrRefused) {
    auto page = parse_s3_listing(
        "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>"
        "<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
        "<NextContinuationToken>1/x=</NextContinuationToken>"
        "<Contents><Key>a%2Fb+c</Key><LastModified>2026-11-26T17:00:00.000Z</LastModified>"
        "<Size>12</Size></Contents><CommonPrefixes><Prefix>p</Prefix></CommonPrefixes>"
        "</ListBucketResult>");
    ASSERT_TRUE(page) << page.error().to_string();
    ASSERT_EQ(page->entries.size(), 1u);
    EXPECT_EQ(page->entries[0].key, "a/b c");
    EXPECT_EQ(page->entries[0].size_bytes, 12u);
    EXPECT_TRUE(page->truncated);
    EXPECT_EQ(page->next_token, "1/x=");
    auto versions = parse_s3_listing(
        "<ListVersionsResult><IsTruncated>false</IsTruncated>"
        "<DeleteMarker><Key>k</Key><VersionId>3</VersionId></DeleteMarker>"
        "<Version><Key>k</Key><VersionId>1</VersionId><Size>4</Size></Version>"
        "</ListVersionsResult>");
    ASSERT_TRUE(versions);
    ASSERT_EQ(versions->entries.size(), 2u);
    EXPECT_TRUE(versions->entries[0].delete_marker);
    EXPECT_EQ(versions->entries[1].version_id, "1");
    for (const char* wrong :
         {"", "<ListBucketResult>", "<Error><Code>x</Code></Error>",
          "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
          "<ListVersionsResult><IsTruncated>true</IsTruncated></ListVersionsResult>",
          "<ListBucketResult><IsTruncated>perhaps</IsTruncated></ListBucketResult>",
          "<ListBucketResult><Contents><Key>k</Key></Contents></ListBucketResult>",
          "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
          "<ListBucketResult><Contents><Key>k</Key><Size>-1</Size></Contents></ListBucketResult>",
          "<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>%4</Key>"
          "<Size>1</Size></Contents></ListBucketResult>",
          "<ListVersionsResult><Version><Key>k</Key><Size>1</Size></Version>"
          "</ListVersionsResult>"})
        EXPECT_FALSE(parse_s3_listing(wrong)) << wrong;
}

// Broken if a rule that deletes behind our back were not noticed.
TEST(S3Xml, RulesThatDeleteAreFound) {
    auto rules = parse_s3_expiry(
        "<LifecycleConfiguration><Rule><ID>old</ID><Status>Enabled</Status><Filter><Prefix>logs/"
        "</Prefix></Filter><Expiration><Days>30</Days></Expiration></Rule>"
        "<Rule><ID>off</ID><Status>Disabled</Status><Expiration><Days>1</Days></Expiration></Rule>"
        "<Rule><ID>parts</ID><Status>Enabled</Status><AbortIncompleteMultipartUpload>"
        "<DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>"
        "<Rule><ID>cold</ID><Status>Enabled</Status><Transition><Days>9</Days></Transition></Rule>"
        "</LifecycleConfiguration>");
    ASSERT_TRUE(rules);
    ASSERT_EQ(rules->size(), 2u);
    EXPECT_EQ((*rules)[0], "rule 'old' deletes objects of 'logs/' (Days 30)");
    EXPECT_NE((*rules)[1].find("'cold' moves"), std::string::npos);
    EXPECT_EQ(*parse_s3_versioning("<VersioningConfiguration><Status>Suspended</Status>"
                                   "</VersioningConfiguration>"),
              "Suspended");
    EXPECT_EQ(*parse_s3_versioning("<VersioningConfiguration/>"), "");
    auto lock = parse_s3_lock_configuration(
        "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>"
        "<DefaultRetention><Mode>GOVERNANCE</Mode><Days>2</Days></DefaultRetention></Rule>"
        "</ObjectLockConfiguration>");
    ASSERT_TRUE(lock);
    EXPECT_TRUE(lock->enabled);
    EXPECT_EQ(lock->default_rule, "GOVERNANCE, 2 Days");
    EXPECT_FALSE(parse_s3_lock_configuration("<Error/>"));
}

}  // namespace
}  // namespace farshore
