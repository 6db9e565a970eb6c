// Arbitrary text as a measured file, and as the kernel's numbers; a plan of what is read is made of
// finite numbers.
#include <cmath>

#include "plan/measured.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const std::string_view text = as_text({data, size});
    (void)parse_written(text);
    (void)parse_disk_size(text);
    const auto measured = parse_measured(text);
    if (!measured) return 0;
    const auto again = parse_measured(format_measured(*measured));
    FS_CHECK(again && again->churn.bytes == measured->churn.bytes);
    PlanQuestion question;
    question.bandwidth = 1'000'000;
    const auto plan = make_plan(plan_input(*measured, 0.5, 7'200'000'000, {}), question);
    FS_CHECK(plan.has_value());
    FS_CHECK(std::isfinite(plan->written_mean) && std::isfinite(plan->written_peak));
    FS_CHECK(plan->bandwidth_p95 <= plan->bandwidth_peak);
    FS_CHECK(plan->spool_p95 <= plan->spool_peak);
    return 0;
}
