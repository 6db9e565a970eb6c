#include "replicate/remote_link.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "replicate/frames.h"
#include "replicate/limits.h"

namespace farshore {
namespace {

using nlohmann::json;

constexpr size_t kMaxDocumentBytes = 2 * kMaxControlBytes;

Result<json> parse(std::string_view text) {
    if (text.size() > kMaxDocumentBytes)
        return fail(Code::kTooLarge, "a link document is too large");
    json document = json::parse(text, nullptr, false);
    if (document.is_discarded() || !document.is_object())
        return fail(Code::kMalformed, "a link document is not a JSON object");
    return document;
}

// Runs `read`, which uses nlohmann's throwing accessors, and names what it refused.
template <typename Read>
auto reading(Read read) -> Result<decltype(read())> {
    try {
        return read();
    } catch (const json::exception& error) {
        return fail(Code::kMalformed, fmt::format("link document: {}", error.what()));
    }
}

// A list of names, bounded by what an appliance has connections.
Result<std::vector<std::string>> texts_field(const json& document, const char* name) {
    constexpr size_t kMaxTexts = 4096;
    FS_ASSIGN(auto texts,
              reading([&] { return document.at(name).get<std::vector<std::string>>(); }));
    if (texts.size() > kMaxTexts)
        return fail(Code::kTooLarge,
                    fmt::format("link document: '{}' has {} entries", name, texts.size()));
    return texts;
}

template <size_t N>
Result<std::array<uint8_t, N>> hex_field(const json& document, const char* name) {
    auto text = reading([&] { return document.at(name).get<std::string>(); });
    if (!text) return tl::unexpected(text.error());
    FS_ASSIGN(Bytes raw, from_hex(*text));
    if (raw.size() != N)
        return fail(Code::kMalformed, fmt::format("field '{}' has {} bytes", name, raw.size()));
    std::array<uint8_t, N> out;
    std::copy(raw.begin(), raw.end(), out.begin());
    return out;
}

Result<ItemId> item_field(const json& document) {
    ItemId item;
    FS_ASSIGN(item.raw, hex_field<16>(document, "item"));
    return item;
}

json encode_registration(const SegmentRegistration& r) {
    return {{"item", r.item.to_string()},
            {"epoch", r.epoch.v},
            {"number", r.number.v},
            {"object_name", r.object_name},
            {"object_bytes", r.object_bytes},
            {"header_hash", to_hex(r.header_hash)},
            {"previous_header", to_hex(r.previous_header)},
            {"first", r.first.v},
            {"last", r.last.v},
            {"first_time_us", r.first_time.us},
            {"last_time_us", r.last_time.us},
            {"written_bytes", r.written_bytes}};
}

Result<SegmentRegistration> decode_registration(const json& document) {
    SegmentRegistration r;
    FS_ASSIGN(r.item, item_field(document));
    FS_ASSIGN(r.header_hash, hex_field<32>(document, "header_hash"));
    FS_ASSIGN(r.previous_header, hex_field<32>(document, "previous_header"));
    return reading([&] {
        r.epoch.v = document.at("epoch").get<uint64_t>();
        r.number.v = document.at("number").get<uint64_t>();
        r.object_name = document.at("object_name").get<std::string>();
        r.object_bytes = document.at("object_bytes").get<uint64_t>();
        r.first.v = document.at("first").get<uint64_t>();
        r.last.v = document.at("last").get<uint64_t>();
        r.first_time.us = document.at("first_time_us").get<int64_t>();
        r.last_time.us = document.at("last_time_us").get<int64_t>();
        r.written_bytes = document.at("written_bytes").get<uint64_t>();
        return r;
    });
}

json encode_lease(const LogLease& lease) {
    return {{"epoch", lease.epoch.v},
            {"next_segment", lease.next_segment.v},
            {"previous_header", to_hex(lease.previous_header)},
            {"stored", lease.stored.v},
            {"agent", lease.agent},
            {"bandwidth", lease.bandwidth},
            {"time_zone", lease.time_zone},
            {"item_key", to_hex(lease.item_key.reveal())}};
}

Result<LogLease> decode_lease(const json& document) {
    LogLease lease;
    FS_ASSIGN(lease.previous_header, hex_field<32>(document, "previous_header"));
    FS_ASSIGN(auto key, hex_field<32>(document, "item_key"));
    lease.item_key = Secret(ByteView(key));
    return reading([&] {
        lease.epoch.v = document.at("epoch").get<uint64_t>();
        lease.next_segment.v = document.at("next_segment").get<uint64_t>();
        lease.stored.v = document.at("stored").get<uint64_t>();
        lease.agent = document.value("agent", std::string());
        lease.bandwidth = document.value("bandwidth", std::string());
        lease.time_zone = document.value("time_zone", std::string("UTC"));
        return lease;
    });
}

json encode_uploads(const std::vector<UploadStatus>& uploads) {
    json list = json::array();
    for (const UploadStatus& one : uploads) {
        json upload{{"item", one.item.to_string()}, {"total_counts", one.total_counts},
                    {"limited", one.limited},       {"waiting_bytes", one.waiting_bytes},
                    {"eta_s", one.eta_s},           {"sent_bytes", one.sent_bytes}};
        if (one.rate != kUnlimited) upload["rate"] = one.rate;
        list.push_back(std::move(upload));
    }
    return list;
}

Result<std::vector<UploadStatus>> decode_uploads(const json& document) {
    if (!document.is_array() || document.size() > kMaxItemsPerAppliance)
        return fail(Code::kMalformed, "uploads must be a list of items");
    std::vector<UploadStatus> uploads;
    for (const json& one : document) {
        UploadStatus upload;
        FS_ASSIGN(upload.item, item_field(one));
        FS_ASSIGN(upload, reading([&] {
                      upload.rate = one.value("rate", kUnlimited);
                      upload.total_counts = one.value("total_counts", false);
                      upload.limited = one.value("limited", false);
                      upload.waiting_bytes = one.value("waiting_bytes", uint64_t{0});
                      upload.eta_s = one.value("eta_s", int64_t{-1});
                      upload.sent_bytes = one.value("sent_bytes", uint64_t{0});
                      return upload;
                  }));
        uploads.push_back(std::move(upload));
    }
    return uploads;
}

template <typename T>
json list_json(const std::vector<T>& values, json (*encode)(const T&)) {
    json list = json::array();
    for (const T& one : values) list.push_back(encode(one));
    return list;
}

// Empty when there is no such list: an older peer does not know it. What in it cannot be read is
// left out, and does not keep the rest of the conversation from anybody: a newer peer may say more.
template <typename T>
Result<std::vector<T>> list_of(const json& document, const char* name, size_t most,
                               Result<T> (*decode)(const json&)) {
    std::vector<T> values;
    const auto list = document.find(name);
    if (list == document.end()) return values;
    if (!list->is_array() || list->size() > most)
        return fail(Code::kMalformed, fmt::format("link document: '{}' is no short list", name));
    for (const json& one : *list)
        if (auto value = decode(one)) values.push_back(std::move(*value));
    return values;
}

Result<std::string> program_of(const json& name) {
    if (!name.is_string()) return fail(Code::kMalformed, "link document: a program is no text");
    FS_TRY(check_script_name(name.get_ref<const std::string&>()));
    return name.get<std::string>();
}

json encode_appliance(const ApplianceStatus& status) {
    return {{"address", status.address},
            {"site", status.site},
            {"version", status.version},
            {"cpu_permille", status.load.cpu_permille},
            {"memory_permille", status.load.memory_permille},
            {"process_bytes", status.load.process_bytes},
            {"spool_used_bytes", status.spool_used_bytes},
            {"spool_free_permille", status.spool_free_permille},
            {"certificate_until_us", status.certificate_until.us},
            {"uploads", encode_uploads(status.uploads)},
            {"scripts", list_json(status.scripts, script_word_json)},
            {"programs", status.programs}};
}

Result<ApplianceStatus> decode_appliance(const json& document) {
    constexpr size_t kMaxWord = 256;
    ApplianceStatus status;
    FS_ASSIGN(status, reading([&] {
                  status.address = document.value("address", std::string());
                  status.site = document.value("site", std::string());
                  status.version = document.value("version", std::string());
                  status.load.cpu_permille = document.value("cpu_permille", -1);
                  status.load.memory_permille = document.value("memory_permille", -1);
                  status.load.process_bytes = document.value("process_bytes", uint64_t{0});
                  status.spool_used_bytes = document.value("spool_used_bytes", uint64_t{0});
                  status.spool_free_permille = document.value("spool_free_permille", -1);
                  status.certificate_until.us = document.value("certificate_until_us", int64_t{0});
                  return status;
              }));
    for (const std::string* word : {&status.address, &status.site, &status.version})
        if (word->size() > kMaxWord)
            return fail(Code::kTooLarge, "link document: a word of an appliance is too long");
    const auto uploads = document.find("uploads");
    if (uploads == document.end()) return fail(Code::kMalformed, "link document: no uploads");
    FS_ASSIGN(status.uploads, decode_uploads(*uploads));
    FS_ASSIGN(status.scripts, list_of(document, "scripts", kMaxScriptOrders, script_word_of));
    FS_ASSIGN(status.programs, list_of(document, "programs", kMaxScriptsTold, program_of));
    return status;
}

json encode_orders(const ApplianceOrders& orders) {
    json items = json::array(), gone = json::array();
    for (const UploadPolicy& one : orders.items)
        items.push_back({{"item", one.item.to_string()}, {"bandwidth", one.bandwidth}});
    for (const ItemId& item : orders.gone) gone.push_back({{"item", item.to_string()}});
    json points = json::array();
    for (const BarrierOrder& one : orders.points) points.push_back(order_json(one));
    return {{"time_zone", orders.time_zone},
            {"items", std::move(items)},
            {"gone", std::move(gone)},
            {"points", std::move(points)},
            {"scripts", list_json(orders.scripts, script_order_json)}};
}

Result<ApplianceOrders> decode_orders(const json& document) {
    ApplianceOrders orders;
    FS_ASSIGN(orders.time_zone,
              reading([&] { return document.value("time_zone", std::string("UTC")); }));
    const auto items = document.find("items");
    if (items == document.end() || !items->is_array())
        return fail(Code::kMalformed, "link document: no list of policies");
    for (const json& one : *items) {
        UploadPolicy policy;
        FS_ASSIGN(policy.item, item_field(one));
        FS_ASSIGN(policy.bandwidth,
                  reading([&] { return one.at("bandwidth").get<std::string>(); }));
        orders.items.push_back(std::move(policy));
    }
    if (const auto gone = document.find("gone"); gone != document.end()) {
        if (!gone->is_array()) return fail(Code::kMalformed, "link document: 'gone' is no list");
        for (const json& one : *gone) {
            FS_ASSIGN(const ItemId item, item_field(one));
            orders.gone.push_back(item);
        }
    }
    if (const auto points = document.find("points"); points != document.end()) {
        if (!points->is_array() || points->size() > kMaxSharedPointsAtOnce)
            return fail(Code::kMalformed, "link document: 'points' is no short list");
        for (const json& one : *points) {
            FS_ASSIGN(BarrierOrder order, order_of(one));
            orders.points.push_back(std::move(order));
        }
    }
    FS_ASSIGN(orders.scripts, list_of(document, "scripts", kMaxScriptOrders, script_order_of));
    return orders;
}

struct TextPair {
    std::string first, second;
};
Result<TextPair> text_pair(const json& document, const char* first, const char* second) {
    return reading([&] {
        return TextPair{document.at(first).get<std::string>(),
                        document.at(second).get<std::string>()};
    });
}

Result<std::string> text_field(std::string_view body, const char* name) {
    FS_ASSIGN(json document, parse(body));
    return reading([&] { return document.at(name).get<std::string>(); });
}

}  // namespace

Result<std::string> serve_link(VaultLink& link, std::string_view method, std::string_view body) {
    FS_ASSIGN(json in, parse(body));
    if (method == "acquire-log") {
        FS_ASSIGN(ItemId item, item_field(in));
        FS_ASSIGN(std::string appliance,
                  reading([&] { return in.at("appliance").get<std::string>(); }));
        FS_ASSIGN(LogLease lease, link.acquire_log(item, appliance));
        return encode_lease(lease).dump();
    }
    if (method == "register-segment") {
        FS_ASSIGN(SegmentRegistration registration, decode_registration(in));
        FS_TRY(link.register_segment(registration));
        return "{}";
    }
    if (method == "mark-idle") {
        struct Mark {
            uint64_t epoch, sequence;
            int64_t time_us;
        };
        FS_ASSIGN(ItemId item, item_field(in));
        FS_ASSIGN(Mark mark, reading([&] {
                      return Mark{in.at("epoch").get<uint64_t>(), in.at("sequence").get<uint64_t>(),
                                  in.at("time_us").get<int64_t>()};
                  }));
        FS_TRY(link.mark_idle(item, {mark.epoch}, {mark.sequence}, {mark.time_us}));
        return "{}";
    }
    if (method == "sync-agent") {
        FS_ASSIGN(TextPair call, text_pair(in, "agent", "status"));
        FS_ASSIGN(std::string reply, link.sync_agent(call.first, call.second));
        return json{{"reply", reply}}.dump();
    }
    if (method == "report-trouble") {
        FS_ASSIGN(ItemId item, item_field(in));
        FS_ASSIGN(std::string appliance,
                  reading([&] { return in.at("appliance").get<std::string>(); }));
        if (!in.contains("code")) {
            FS_TRY(link.report_trouble(item, appliance, std::nullopt));
            return "{}";
        }
        FS_ASSIGN(TextPair words, text_pair(in, "what", "remedy"));
        FS_ASSIGN(std::string code, reading([&] { return in.at("code").get<std::string>(); }));
        FS_TRY(link.report_trouble(item, appliance,
                                   Error(code_from_name(code), words.first, words.second)));
        return "{}";
    }
    if (method == "sync-appliance") {
        FS_ASSIGN(std::string appliance,
                  reading([&] { return in.at("appliance").get<std::string>(); }));
        FS_ASSIGN(const ApplianceStatus status, decode_appliance(in));
        FS_ASSIGN(const ApplianceOrders orders, link.sync_appliance(appliance, status));
        return encode_orders(orders).dump();
    }
    if (method == "compare") {
        FS_ASSIGN(std::string agent, reading([&] { return in.at("agent").get<std::string>(); }));
        FS_ASSIGN(std::string frame, reading([&] { return in.at("frame").get<std::string>(); }));
        FS_ASSIGN(const Bytes raw, from_hex(frame));
        FS_ASSIGN(const CompareFrame asked, decode_compare(raw));
        FS_ASSIGN(CompareAnswer answer, link.compare(agent, asked.item, asked.question));
        const Bytes encoded = encode(ComparedFrame{asked.request, std::move(answer)});
        return json{{"frame", to_hex(ByteView(encoded).subspan(1))}}.dump();
    }
    if (method == "shared-point") {
        FS_ASSIGN(TextPair call, text_pair(in, "appliance", "report"));
        FS_ASSIGN(const BarrierReport report, decode_report(call.second));
        FS_ASSIGN(const BarrierOrder order, link.shared_point_step(call.first, report));
        return json{{"order", encode_order(order)}}.dump();
    }
    if (method == "open-return") {
        FS_ASSIGN(const ItemId item, item_field(in));
        FS_ASSIGN(const TextPair who, text_pair(in, "appliance", "agent"));
        FS_ASSIGN(const uint64_t to, reading([&] { return in.at("to").get<uint64_t>(); }));
        FS_ASSIGN(const ReturnGrant grant, link.open_return(who.first, who.second, item, {to}));
        return json{{"item_key", to_hex(grant.item_key.reveal())}, {"end", grant.end.v}}.dump();
    }
    if (method == "refused-agents") {
        FS_ASSIGN(const std::vector<std::string> agents, texts_field(in, "agents"));
        FS_ASSIGN(const std::vector<std::string> refused, link.refused_agents(agents));
        return json{{"refused", refused}}.dump();
    }
    if (method == "renew") {
        FS_ASSIGN(TextPair call, text_pair(in, "party", "request_pem"));
        FS_ASSIGN(std::string chain, link.renew(call.first, call.second));
        return json{{"chain_pem", chain}}.dump();
    }
    if (method == "enrol") {
        FS_ASSIGN(TextPair call, text_pair(in, "token", "request_pem"));
        FS_ASSIGN(std::string chain, link.enrol(call.first, call.second));
        return json{{"chain_pem", chain}}.dump();
    }
    return fail(Code::kNotFound, fmt::format("no link method '{}'", method.substr(0, 64)),
                "bring appliance and vault to the same version");
}

Result<LogLease> RemoteVaultLink::acquire_log(const ItemId& item, const std::string& appliance) {
    FS_ASSIGN(std::string answer,
              transport_("acquire-log",
                         json{{"item", item.to_string()}, {"appliance", appliance}}.dump()));
    FS_ASSIGN(json document, parse(answer));
    return decode_lease(document);
}

Status RemoteVaultLink::register_segment(const SegmentRegistration& registration) {
    FS_TRY(transport_("register-segment", encode_registration(registration).dump()));
    return {};
}

Status RemoteVaultLink::mark_idle(const ItemId& item, Epoch epoch, Sequence sequence,
                                  TimePoint time) {
    FS_TRY(transport_("mark-idle", json{{"item", item.to_string()},
                                        {"epoch", epoch.v},
                                        {"sequence", sequence.v},
                                        {"time_us", time.us}}
                                       .dump()));
    return {};
}

Result<std::string> RemoteVaultLink::sync_agent(const std::string& agent,
                                                const std::string& status) {
    FS_ASSIGN(std::string answer,
              transport_("sync-agent", json{{"agent", agent}, {"status", status}}.dump()));
    return text_field(answer, "reply");
}

Status RemoteVaultLink::report_trouble(const ItemId& item, const std::string& appliance,
                                       const std::optional<Error>& trouble) {
    json call{{"item", item.to_string()}, {"appliance", appliance}};
    if (trouble) {
        call["code"] = code_name(trouble->code());
        call["what"] = trouble->what();
        call["remedy"] = trouble->remedy();
    }
    FS_TRY(transport_("report-trouble", call.dump()));
    return {};
}

Result<ApplianceOrders> RemoteVaultLink::sync_appliance(const std::string& appliance,
                                                        const ApplianceStatus& status) {
    json call = encode_appliance(status);
    call["appliance"] = appliance;
    FS_ASSIGN(std::string answer,
              transport_("sync-appliance",
                         // What programs print may be no UTF-8.
                         call.dump(-1, ' ', false, json::error_handler_t::replace)));
    FS_ASSIGN(json document, parse(answer));
    return decode_orders(document);
}

Result<CompareAnswer> RemoteVaultLink::compare(const std::string& agent, const ItemId& item,
                                               const CompareQuestion& question) {
    const Bytes asked = encode(CompareFrame{0, item, question});
    FS_ASSIGN(
        std::string reply,
        transport_("compare",
                   json{{"agent", agent}, {"frame", to_hex(ByteView(asked).subspan(1))}}.dump()));
    FS_ASSIGN(const std::string frame, text_field(reply, "frame"));
    FS_ASSIGN(const Bytes raw, from_hex(frame));
    FS_ASSIGN(ComparedFrame answer, decode_compared(raw));
    return std::move(answer.answer);
}

Result<BarrierOrder> RemoteVaultLink::shared_point_step(const std::string& appliance,
                                                        const BarrierReport& report) {
    FS_ASSIGN(std::string answer,
              transport_("shared-point",
                         json{{"appliance", appliance}, {"report", encode_report(report)}}.dump()));
    FS_ASSIGN(const std::string order, text_field(answer, "order"));
    return decode_order(order);
}

Result<ReturnGrant> RemoteVaultLink::open_return(const std::string& appliance,
                                                 const std::string& agent, const ItemId& item,
                                                 Sequence to) {
    FS_ASSIGN(const std::string answer, transport_("open-return", json{{"appliance", appliance},
                                                                       {"agent", agent},
                                                                       {"item", item.to_string()},
                                                                       {"to", to.v}}
                                                                      .dump()));
    FS_ASSIGN(const json document, parse(answer));
    ReturnGrant grant;
    FS_ASSIGN(auto key, hex_field<32>(document, "item_key"));
    grant.item_key = Secret(ByteView(key));
    FS_ASSIGN(grant.end.v, reading([&] { return document.at("end").get<uint64_t>(); }));
    return grant;
}

Result<std::vector<std::string>> RemoteVaultLink::refused_agents(
    const std::vector<std::string>& agents) {
    FS_ASSIGN(std::string answer, transport_("refused-agents", json{{"agents", agents}}.dump()));
    FS_ASSIGN(json document, parse(answer));
    return texts_field(document, "refused");
}

Result<std::string> RemoteVaultLink::renew(const std::string& party,
                                           const std::string& request_pem) {
    FS_ASSIGN(std::string answer,
              transport_("renew", json{{"party", party}, {"request_pem", request_pem}}.dump()));
    return text_field(answer, "chain_pem");
}

Result<std::string> RemoteVaultLink::enrol(const std::string& token,
                                           const std::string& request_pem) {
    FS_ASSIGN(std::string answer,
              transport_("enrol", json{{"token", token}, {"request_pem", request_pem}}.dump()));
    return text_field(answer, "chain_pem");
}

}  // namespace farshore
