#include "cli/plan_prices.h"

#include <fmt/core.h>

#include <charconv>

#include "cli/config_file.h"

namespace farshore {
namespace {

constexpr double kMostPrice = 1e9;
constexpr size_t kMaxCurrency = 16;

struct PriceKey {
    std::string_view key;
    double PlanPrices::*price;
};
constexpr PriceKey kPrices[] = {
    {"storage-gb-month", &PlanPrices::storage_gb_month},
    {"put-1000", &PlanPrices::put_1000},
    {"get-1000", &PlanPrices::get_1000},
    {"head-1000", &PlanPrices::head_1000},
    {"list-1000", &PlanPrices::list_1000},
    {"egress-gb", &PlanPrices::egress_gb},
};

Result<double> price_of(const ConfigSetting& setting, const std::string& place) {
    const std::string& text = setting.values.front();
    double value = -1;
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
    const bool right = setting.kind == ConfigKind::kText || setting.kind == ConfigKind::kInteger;
    if (!right || error != std::errc() || end != text.data() + text.size() || !(value >= 0) ||
        value > kMostPrice)
        return fail(Code::kInvalidArgument, fmt::format("{}: '{}' is no price", place, setting.key),
                    "write a decimal number in quotes, such as \"0.005\"");
    return value;
}

}  // namespace

Result<PlanPrices> parse_prices(std::string_view text, const std::string& file) {
    FS_ASSIGN(const auto settings, parse_config(text, file));
    PlanPrices prices;
    for (const ConfigSetting& setting : settings) {
        const std::string place = config_place(file, setting.line, setting.column);
        if (setting.key == "currency") {
            if (setting.kind != ConfigKind::kText || setting.values.front().size() > kMaxCurrency)
                return fail(Code::kInvalidArgument,
                            fmt::format("{}: the currency is a text of at most {} bytes", place,
                                        kMaxCurrency));
            prices.currency = setting.values.front();
            continue;
        }
        bool known = false;
        for (const PriceKey& one : kPrices) {
            if (one.key != setting.key || setting.values.empty()) continue;
            FS_ASSIGN(prices.*one.price, price_of(setting, place));
            known = true;
        }
        if (!known)
            return fail(Code::kInvalidArgument,
                        fmt::format("{}: there is no price '{}'", place, setting.key),
                        "docs/operations/planner.md lists them");
    }
    return prices;
}

}  // namespace farshore
