#include "cli/plan_yaml.h"
#include "meta/json_fields.h"

// What is read comes back the same from what is written of it, but for code points that are no
// characters: YAML cannot hold them.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const auto json = json_from_yaml({reinterpret_cast<const char*>(data), size});
    if (!json) return 0;
    const std::string yaml = yaml_from_json(*json);
    if (yaml.size() > kMaxYamlBytes || yaml.find("\xef\xbf\xbd") != std::string::npos) return 0;
    const auto again = json_from_yaml(yaml);
    if (!again || *again != *json) __builtin_trap();
    return 0;
}
