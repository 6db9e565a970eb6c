#include "compute/compute_host.h"

#include <nlohmann/json.hpp>

using namespace farshore;

// What is taken, as JSON or as a URI, has nothing in it that libvirt, a shell or ssh could take for
// something else, and is read back as it was.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const auto check = [](const ComputeHostSettings& settings) {
        const auto again = compute_host_from_json(compute_host_json(settings), "settings");
        if (!again || *again != settings) __builtin_trap();
        const auto uri = compute_host_uri(settings.uri);
        if (!uri || (!uri->host.empty() && uri->host[0] == '-')) __builtin_trap();
        if (uri->remote() == uri->host.empty()) __builtin_trap();
        const std::string connection = connection_uri(settings);
        if (connection.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                         "0123456789+:/?&=@[],._-") != connection.npos)
            __builtin_trap();
        for (const char* never : {"command=", "netcat=", "no_verify=", ".."})
            if (connection.find(never) != connection.npos) __builtin_trap();
    };
    ComputeHostSettings settings;
    settings.uri = text;
    if (auto good = check_compute_host(settings)) check(*good);
    settings.disks = DisksOver::kTls;
    settings.disks_address = "192.0.2.1";
    if (auto good = check_compute_host(settings)) check(*good);
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (auto good = compute_host_from_json(json, "settings")) check(*good);
    return 0;
}
