// A configuration may be any file that somebody names: whatever the bytes, reading them ends in
// settings with a place in the file, or in an error that begins with one.
#include "cli/config_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    auto settings =
        parse_config(std::string_view(reinterpret_cast<const char*>(data), size), "f.toml");
    if (!settings) {
        FS_CHECK(settings.error().what().starts_with("f.toml:"));
        return 0;
    }
    for (const ConfigSetting& setting : *settings) {
        FS_CHECK(setting.line > 0 && setting.column > 0);
        FS_CHECK(setting.kind == ConfigKind::kTexts || setting.values.size() == 1);
        for (const std::string& value : setting.values)
            FS_CHECK(value.find('\0') == std::string::npos);
    }
    return 0;
}
