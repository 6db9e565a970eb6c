// Both ends of the link between appliance and vault, with any document from the other one.
#include "replicate/remote_link.h"

using namespace farshore;

namespace {

// Takes everything.
class AnyVault final : public VaultLink {
  public:
    Result<LogLease> acquire_log(const ItemId&, const std::string&) override { return LogLease(); }
    Status register_segment(const SegmentRegistration&) override { return {}; }
    Status mark_idle(const ItemId&, Epoch, Sequence, TimePoint) override { return {}; }
    Result<std::string> sync_agent(const std::string& agent, const std::string& status) override {
        return agent + status;
    }
    Status report_trouble(const ItemId&, const std::string&, const std::optional<Error>&) override {
        return {};
    }
    Result<CompareAnswer> compare(const std::string&, const ItemId&,
                                  const CompareQuestion& question) override {
        FS_CHECK(question.blocks() >= 1 && question.blocks() <= kMaxCompareBlocks);
        return CompareAnswer();
    }
    Result<std::string> enrol(const std::string& token, const std::string&) override {
        return token;
    }
};

constexpr const char* kMethods[] = {"acquire-log",    "register-segment",
                                    "mark-idle",      "sync-agent",
                                    "report-trouble", "compare",
                                    "enrol",          "none",
                                    "refused-agents", "renew",
                                    "sync-appliance"};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 1) return 0;
    const std::string body(reinterpret_cast<const char*>(data + 1), size - 1);
    AnyVault vault;
    (void)serve_link(vault, kMethods[data[0] < 0xf0 ? data[0] % 8 : data[0] % 3 + 8], body);
    RemoteVaultLink link([&](const std::string&, const std::string&) { return body; });
    switch (data[0] / 8 % 4) {
        case 0:
            (void)link.acquire_log({}, "a");
            break;
        case 1:
            (void)link.sync_agent("a", "{}");
            break;
        case 2: {
            CompareQuestion question;
            question.length_bytes = kSumBlockBytes;
            (void)link.compare("a", {}, question);
            break;
        }
        default:
            (void)link.enrol("t", "r");
            (void)link.sync_appliance("a", {});
    }
    return 0;
}
