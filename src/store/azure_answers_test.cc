#include "store/azure_answers.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

// Broken if a page that was cut on its way passed for a whole one: objects would seem to be gone.
TEST(AzureAnswers, ReadsPagesThatAreWhole) {
    const std::string page =
        "\xEF\xBB\xBF<?xml version=\"1.0\" encoding=\"utf-8\"?>"
        "<EnumerationResults ServiceEndpoint=\"https://acct.blob.core.windows.net/\" "
        "ContainerName=\"box\"><Prefix>a/</Prefix><MaxResults>2</MaxResults><Blobs>"
        "<Blob><Name>a/1</Name><Properties><Content-Length>0</Content-Length></Properties></Blob>"
        "<Blob><Name>a/2&amp;</Name><Properties><Etag>0x8</Etag><Content-Length>67108864"
        "</Content-Length></Properties><OrMetadata/></Blob>"
        "<Blob><Name Encoded=\"true\">a%EF%BF%BE</Name><Properties><Content-Length>1"
        "</Content-Length></Properties></Blob>"
        "</Blobs><NextMarker>2!76!xyz</NextMarker></EnumerationResults>";
    const auto read = parse_azure_blob_page(page);
    ASSERT_TRUE(read) << read.error().to_string();
    ASSERT_EQ(read->blobs.size(), 2u);
    EXPECT_EQ(read->blobs[0].name, "a/1");
    EXPECT_EQ(read->blobs[1].name, "a/2&");
    EXPECT_EQ(read->blobs[1].size_bytes, 67108864u);
    EXPECT_EQ(read->next_marker, "2!76!xyz");
    for (size_t length = 0; length < page.size(); ++length)
        EXPECT_EQ(parse_azure_blob_page(page.substr(0, length)).error().code(), Code::kMalformed)
            << length;
    for (const char* wrong :
         {"<html><body>Please log in</body></html>", "<EnumerationResults/>",
          "<EnumerationResults><Blobs/></EnumerationResults>",
          "<EnumerationResults><Blobs><Blob><Name>a</Name></Blob></Blobs><NextMarker/>"
          "</EnumerationResults>",
          "<EnumerationResults><Blobs><Blob><Name>a</Name><Properties><Content-Length>-1"
          "</Content-Length></Properties></Blob></Blobs><NextMarker/></EnumerationResults>"})
        EXPECT_EQ(parse_azure_blob_page(wrong).error().code(), Code::kMalformed) << wrong;
}

// Broken if a log could hold line breaks of a stranger's, or the signature that a service expected.
TEST(AzureAnswers, ErrorsAreOneLineWithoutSecrets) {
    const AzureErrorText error = parse_azure_error(
        "<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>Server failed to "
        "authenticate the request.\nRequestId:1\nTime:2</Message><AuthenticationErrorDetail>The "
        "MAC "
        "signature found in the HTTP request 'AAA' is not the same as any computed signature."
        "</AuthenticationErrorDetail></Error>");
    EXPECT_EQ(error.code, "AuthenticationFailed");
    EXPECT_EQ(error.message, "Server failed to authenticate the request.");
    EXPECT_EQ(error.detail, "");
    EXPECT_EQ(parse_azure_error("<Error><Code>A\r\nB</Code></Error>").code.find('\n'),
              std::string::npos);
    EXPECT_EQ(parse_azure_error("<html/>").code, "");
    EXPECT_EQ(parse_azure_error("").code, "");
    EXPECT_LE(parse_azure_error("<Error><Code>" + std::string(10'000, 'x') + "</Code></Error>")
                  .code.size(),
              500u);
}

// Broken if a token outlived its end, or something else became an Authorization header.
TEST(AzureAnswers, TokensSayWhenTheyEnd) {
    const TimePoint now{1'000'000'000};
    const auto by_time = parse_azure_token(
        R"({"access_token":"abc.def","expires_in":"100","expires_on":"5000","token_type":"Bearer"})",
        now);
    ASSERT_TRUE(by_time);
    EXPECT_EQ(as_text(by_time->access_token.reveal()), "abc.def");
    EXPECT_EQ(by_time->expires.us, 5'000'000'000);
    const auto by_length = parse_azure_token(R"({"access_token":"a","expires_in":100})", now);
    ASSERT_TRUE(by_length);
    EXPECT_EQ(by_length->expires.us, now.us + 100'000'000);
    for (const char* wrong :
         {"", "[]", "{}", R"({"access_token":"a"})", R"({"access_token":"","expires_in":1})",
          R"({"access_token":"a\r\nX: y","expires_in":1})", R"({"access_token":1,"expires_in":1})",
          R"({"access_token":"a","expires_in":-1})",
          R"({"access_token":"a","expires_on":99999999999999999999})"})
        EXPECT_EQ(parse_azure_token(wrong, now).error().code(), Code::kMalformed) << wrong;
}

}  // namespace
}  // namespace farshore
