#include "cli/compute_commands.h"

#include <fmt/core.h>

#include <array>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"
#include "os/real.h"

namespace farshore {
namespace {

struct Setting {
    const char* option;
    const char* member;
    std::optional<std::string> ComputeHostArguments::*value;
    const char* help;
};
constexpr std::array kSettings{
    Setting{"--uri", "uri", &ComputeHostArguments::uri,
            "libvirt's: qemu:///system, qemu:///session, qemu+unix:///system?socket=/PATH, "
            "qemu+tls://HOST/system, qemu+ssh://[USER@]HOST/system"},
    Setting{"--accelerator", "accelerator", &ComputeHostArguments::accelerator,
            "auto (KVM when the host offers it), kvm or tcg"},
    Setting{"--disks", "disks", &ComputeHostArguments::disks,
            "how its QEMU reaches the disks: unix (this machine) or tls"},
    Setting{"--disks-group", "disks_group", &ComputeHostArguments::disks_group,
            "with unix: the group that may open the sockets (libvirt-qemu)"},
    Setting{"--disks-address", "disks_address", &ComputeHostArguments::disks_address,
            "with tls: where the host reaches this vault, an IP address or a name"},
    Setting{"--disks-ports", "disks_ports", &ComputeHostArguments::disks_ports,
            "with tls: FIRST-LAST (10810-11809)"},
    // Paths of the vault's machine.
    Setting{"--pki-directory", "pki_directory", &ComputeHostArguments::pki_directory,
            "with qemu+tls: the vault's directory with cacert.pem, clientcert.pem, clientkey.pem"},
    Setting{"--ssh-key-file", "ssh_key_file", &ComputeHostArguments::ssh_key_file,
            "with qemu+ssh: the vault's file with the private key"},
    Setting{"--known-hosts-file", "known_hosts_file", &ComputeHostArguments::known_hosts_file,
            "with qemu+ssh: the vault's file that the host's key is checked against"},
};

// Of the vault's answer, and what it is called in the directory; QEMU's names.
constexpr std::array<std::pair<const char*, const char*>, 3> kCredentialFiles{
    {{"authority", "ca-cert.pem"}, {"certificate", "client-cert.pem"}, {"key", "client-key.pem"}}};

std::string host_target(const std::string& name, std::string_view rest = {}) {
    return "/v1/compute-hosts/" + url_encode(name) + std::string(rest);
}

void put_settings(const ComputeHostArguments& arguments, Json& body) {
    for (const Setting& setting : kSettings)
        if (const auto& value = arguments.*setting.value) {
            if (*value == "none")
                body.erase(setting.member);
            else
                body[setting.member] = *value;
        }
}

std::string disks_words(const Json& host) {
    if (text_of(host, "disks") == "tls")
        return fmt::format("tls, {} ports {}", text_of(host, "disks_address"),
                           text_of(host, "disks_ports"));
    const std::string group = text_of(host, "disks_group");
    return group.empty() ? "unix" : "unix, group " + group;
}

}  // namespace

ComputeVerbs::ComputeVerbs(CliEnvironment& environment, const LocationOptions& location, bool json)
    : impl_(new ClientVerbs::Impl{environment, location, json, nullptr, 0}) {}
ComputeVerbs::~ComputeVerbs() = default;

int ComputeVerbs::hosts() {
    auto answer = impl_->call("GET", "/v1/compute-hosts");
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"HOST"}, {"URI"}, {"ACCELERATOR"}, {"DISKS"}});
    if (const Json& hosts = member(*answer, "compute_hosts"); hosts.is_array())
        for (const Json& host : hosts)
            table.add({text_of(host, "name"), printable(text_of(host, "uri")),
                       text_of(host, "accelerator"), printable(disks_words(host))});
    impl_->say(table.empty() ? "There is none: machines are recovered on the vault's machine.\n"
                             : table.to_string());
    return 0;
}

int ComputeVerbs::show_host(const Result<Json>& answer) {
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    std::vector<std::pair<std::string, std::string>> rows{
        {"Host", text_of(*answer, "name")},
        {"URI", printable(text_of(*answer, "uri"))},
        {"Accelerator", text_of(*answer, "accelerator")},
        {"Disks", printable(disks_words(*answer))}};
    for (const auto& [title, key] :
         {std::pair("PKI directory", "pki_directory"), std::pair("SSH key", "ssh_key_file"),
          std::pair("Known hosts", "known_hosts_file")})
        if (const std::string path = text_of(*answer, key); !path.empty())
            rows.emplace_back(title, printable(path));
    impl_->say(key_values(rows));
    return 0;
}

int ComputeVerbs::host(const std::string& name) {
    return show_host(impl_->call("GET", host_target(name)));
}

int ComputeVerbs::add_host(const ComputeHostArguments& arguments) {
    Json body{{"name", arguments.name}};
    put_settings(arguments, body);
    return show_host(impl_->call("POST", "/v1/compute-hosts", body));
}

int ComputeVerbs::change_host(const ComputeHostArguments& arguments) {
    auto now = impl_->call("GET", host_target(arguments.name));
    if (!now) return impl_->failed(now.error());
    Json body = Json::object();
    for (const Setting& setting : kSettings)
        if (now->contains(setting.member)) body[setting.member] = (*now)[setting.member];
    put_settings(arguments, body);
    return show_host(
        impl_->call_if_match(text_of(*now, "etag"), "PUT", host_target(arguments.name), body));
}

int ComputeVerbs::remove_host(const std::string& name, bool force) {
    auto answer = impl_->call("DELETE", host_target(name, force ? "?force=true" : ""));
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json) impl_->say("Removed.\n");
    return 0;
}

int ComputeVerbs::check(const std::string& name) {
    auto answer = impl_->call("POST", host_target(name, "/check"), Json::object());
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    std::string networks;
    if (const Json& names = member(*answer, "networks"); names.is_array())
        for (const Json& network : names)
            if (network.is_string())
                networks += (networks.empty() ? "" : ", ") + printable(network.get<std::string>());
    const auto size = [&](const char* key) {
        return human_bytes(static_cast<uint64_t>(number_of(*answer, key).value_or(0)));
    };
    impl_->say(key_values(
        {{"Host", printable(text_of(*answer, "hostname"))},
         {"libvirt", text_of(*answer, "libvirt_version")},
         {"QEMU", text_of(*answer, "hypervisor_version")},
         {"KVM", member(*answer, "kvm") == true ? "yes" : "no: machines are emulated"},
         {"Processors", fmt::format("{:.0f}", number_of(*answer, "cpus").value_or(0))},
         {"Memory", size("memory_bytes") + ", " + size("free_memory_bytes") + " free"},
         {"Networks", networks.empty() ? "none of its own" : networks},
         {"Answers in",
          fmt::format("{:.1f} ms", number_of(*answer, "round_trip_us").value_or(0) / 1000)}}));
    return 0;
}

int ComputeVerbs::networks(const std::string& host) {
    auto answer =
        impl_->call("GET", host.empty() ? "/v1/networks" : "/v1/networks?host=" + url_encode(host));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"NETWORK"}, {"CAN BE USED"}});
    if (const Json& networks = member(*answer, "networks"); networks.is_array())
        for (const Json& network : networks)
            table.add(
                {printable(text_of(network, "network")),
                 flag_of(network, "usable") ? "yes" : printable(text_of(network, "why_not"))});
    impl_->say(table.to_string());
    return 0;
}

int ComputeVerbs::credentials(const ComputeHostArguments& arguments) {
    PosixFileSystem files;
    const std::string directory = impl_->absolute(arguments.out);
    // All that can go wrong here goes wrong before a key is made.
    if (Status made = files.make_directories(directory); !made) return impl_->failed(made.error());
    for (const auto& [key, name] : kCredentialFiles) {
        const std::string path = fmt::format("{}/{}", directory, name);
        const auto there = files.exists(path);
        if (!there) return impl_->failed(there.error());
        if (*there && !arguments.force)
            return impl_->failed(Error(Code::kAlreadyExists, fmt::format("'{}' is there", path),
                                       "remove it, name another directory, or say --force"));
    }
    auto answer = impl_->call("POST", host_target(arguments.name, "/credentials"));
    if (!answer) return impl_->failed(answer.error());
    for (const auto& [key, name] : kCredentialFiles) {
        // Bytes, not words for a terminal.
        const Json& text = member(*answer, key);
        if (!text.is_string())
            return impl_->failed(
                Error(Code::kMalformed, fmt::format("the vault's answer has no {}", key)));
        const auto access =
            name == std::string_view("client-key.pem") ? FileAccess::kPrivate : FileAccess::kPublic;
        const std::string path = fmt::format("{}/{}", directory, name);
        if (Status written =
                write_file_durably(files, path, as_bytes(text.get<std::string>()), access);
            !written)
            return impl_->failed(written.error());
    }
    const std::string expires = text_of(*answer, "expires_at");
    if (impl_->json)
        impl_->print({{"out", directory}, {"expires_at", expires}});
    else
        impl_->say(
            fmt::format("ca-cert.pem, client-cert.pem and client-key.pem are in {}, good until {}. "
                        "They belong on '{}', and nowhere else.\n",
                        directory, human_time(expires), arguments.name));
    return 0;
}

int ComputeVerbs::item_compute(const ComputeHostArguments& arguments) {
    const std::string target = item_target(arguments.item, "/compute");
    auto answer = arguments.host ? impl_->call("PUT", target, Json{{"host", *arguments.host}})
                                 : impl_->call("GET", target);
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    const std::string host = text_of(*answer, "host");
    impl_->say(host == "local" ? "It is recovered on the vault's machine.\n"
                               : fmt::format("It is recovered on '{}'.\n", host));
    return 0;
}

void add_compute_commands(CLI::App& app, ComputeHostArguments& arguments,
                          const AddComputeVerb& verb) {
    ComputeHostArguments& a = arguments;
    CLI::App* compute =
        app.add_subcommand("compute", "libvirt hosts on which machines can be recovered");
    compute->require_subcommand(1);
    verb(*compute, "list", "All hosts", [](ComputeVerbs& v) { return v.hosts(); });
    const auto of_host = [&](const char* name, const char* help, const ComputeVerb& run) {
        CLI::App* of = verb(*compute, name, help, run);
        of->add_option("NAME", a.name, "the host, as this vault calls it")->required();
        return of;
    };
    const auto add_settings = [&](CLI::App* of, bool is_new) {
        for (const Setting& setting : kSettings) {
            CLI::Option* option = of->add_option(setting.option, a.*setting.value, setting.help);
            if (is_new && setting.value == &ComputeHostArguments::uri) option->required();
        }
    };
    of_host("show", "One host", [&a](ComputeVerbs& v) { return v.host(a.name); });
    add_settings(of_host("add", "Add a host", [&a](ComputeVerbs& v) { return v.add_host(a); }),
                 true);
    add_settings(of_host("change", "Change a host; what is not named stays, none takes it away",
                         [&a](ComputeVerbs& v) { return v.change_host(a); }),
                 false);
    of_host("check", "Connect to it and show what it has",
            [&a](ComputeVerbs& v) { return v.check(a.name); });
    of_host("remove", "Forget a host on which no item is to run", [&a](ComputeVerbs& v) {
        return v.remove_host(a.name, a.force);
    })->add_flag("--force", a.force, "it is gone for good: what was left there is not waited for");
    verb(*compute, "networks", "What machines can be plugged into there", [&a](ComputeVerbs& v) {
        return v.networks(a.host.value_or(std::string()));
    })->add_option("HOST", a.host, "one of `compute list` (the vault's machine)");
    CLI::App* credentials =
        of_host("credentials", "Issue a certificate and its key for the host's QEMU",
                [&a](ComputeVerbs& v) { return v.credentials(a); });
    credentials->add_option("--out", a.out, "directory to write them to; made when it is missing")
        ->required();
    credentials->add_flag("--force", a.force, "replace the files that are there");
}

void add_item_compute(CLI::App& item, ComputeHostArguments& arguments, const AddComputeVerb& verb) {
    ComputeHostArguments& a = arguments;
    CLI::App* compute =
        verb(item, "compute", "Where its machine is recovered: shows the host, or sets it",
             [&a](ComputeVerbs& v) { return v.item_compute(a); });
    compute->add_option("ITEM", a.item, "name or id of the item")->required();
    compute->add_option("HOST", a.host, "one of `compute list`; local: the vault's machine");
}

}  // namespace farshore
