// S3 and Azure Blob over HTTP, as far as reading a store goes: GET with a range, and lists.
// Internal to src/extract.
//
// Sources: AWS, "Signature Version 4" and "ListObjectsV2"; Azure, "Authorize with Shared Key" and
// "List Blobs", service version 2023-11-03.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "extract/store_reader.h"

namespace farshore::extraction {

struct RemoteSettings {
    bool azure = false;
    std::string container;  // or bucket
    std::string prefix;     // "" or "some/where/"
    std::string endpoint;   // "https://host[:port][/path]", without '/' at its end
    bool virtual_host = false;
    std::string region = "us-east-1";
    std::string access_key_id;
    Secret secret_access_key, session_token;
    std::string account;
    Secret account_key;  // decoded
    std::string sas;     // a query; empty: account_key
    std::string authority_pem, proxy, proxy_user;
    Secret proxy_password;
};

// Pure parts, for tests.

// Splits "s3://…" or "azure://…"; kInvalidArgument.
Result<RemoteSettings> parse_remote_location(std::string_view location);

using Fields = std::map<std::string, std::string>;
// The Authorization header of a GET. `path` is encoded, `query` is not; `headers` has lower-case
// names, and all that are signed, x-amz-date (20130524T000000Z) among them.
std::string s3_authorization(const RemoteSettings& settings, const std::string& path,
                             const Fields& query, const Fields& headers);
std::string azure_shared_key(const RemoteSettings& settings, const std::string& path,
                             const Fields& query, const Fields& headers);

struct ListPage {
    std::vector<std::string> names;     // whole ones
    std::vector<std::string> prefixes;  // ending in '/'
    std::string next;                   // empty: the last page
};
// kMalformed.
Result<ListPage> parse_s3_page(std::string_view xml);
Result<ListPage> parse_azure_page(std::string_view xml);

std::unique_ptr<StoreReader> make_remote_reader(RemoteSettings settings);

}  // namespace farshore::extraction
