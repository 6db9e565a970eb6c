#include "store/open_azure.h"

#include <fmt/core.h>

#include "os/program_files.h"
#include "os/real.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

constexpr size_t kMaxAuthorityBytes = 4u << 20;

}  // namespace

Result<AzureAccess> azure_access_of(FileSystem& files, const StoreSettings& settings) {
    FS_ASSIGN(const StoreLocation location, parse_store_location(settings.location));
    if (location.kind != StoreKind::kAzure)
        return fail(Code::kInvalidArgument, fmt::format("{} is not in Azure", settings.location));
    AzureAccess access;
    access.account = location.account;
    access.container = location.container;
    access.endpoint = settings.endpoint;
    access.account_key = settings.account_key;
    access.sas = settings.sas;
    access.managed_identity = settings.managed_identity;
    access.identity = {settings.identity_endpoint, settings.identity_client_id};
    access.proxy = settings.proxy;
    access.proxy_user = settings.proxy_user;
    access.proxy_password = settings.proxy_password;
    access.connect_timeout_us = settings.connect_timeout_us;
    access.timeout_us = settings.timeout_us;
    if (!settings.ca_file.empty()) {
        auto pem = read_whole_file(files, settings.ca_file, kMaxAuthorityBytes);
        if (!pem) return fail(pem.error().with_context("the store's ca_file"));
        access.authority_pem = to_text(*pem);
        if (access.authority_pem.find("-----BEGIN CERTIFICATE-----") == std::string::npos)
            return fail(
                Code::kMalformed,
                fmt::format("the store's ca_file {} holds no certificate", settings.ca_file),
                "give the authority's certificate as PEM");
    }
    return access;
}

Result<std::unique_ptr<AzureStore>> make_azure_store(FileSystem& files, Clock& clock,
                                                     Random& random,
                                                     const StoreSettings& settings) {
    FS_ASSIGN(const StoreLocation location, parse_store_location(settings.location));
    AzureStoreOptions options;
    FS_ASSIGN(options.access, azure_access_of(files, settings));
    options.prefix = location.prefix;
    options.immutable_days = settings.object_lock_days;
    return AzureStore::make(std::move(options), clock, random);
}

Status check_azure_locks(AzureStore& store, bool create) {
    if (!create) return {};
    const auto identity = store.head(kStoreObject);
    if (identity || identity.error().code() != Code::kNotFound) return {};
    FS_ASSIGN(const AzureStore::Immutability tried, store.check_immutability());
    if (tried.enforced) return {};
    return fail(Code::kUnsupported,
                fmt::format("object_lock_days is not enforced by {}: {}", store.client().place(),
                            tried.why_not),
                "make the container with version-level immutability support, or leave "
                "object_lock_days out");
}

}  // namespace farshore
