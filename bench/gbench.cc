// SPDX-License-Identifier: Apache-2.0
//
// gbench.h on top of Google Benchmark. Google Benchmark adds "/manual_time" to the names of
// benchmarks that measure their own time, which all of them do here, and "/iterations:1" to some;
// the filter and the reports work on the plain names instead.
#include "gbench.h"

#include <algorithm>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <regex.h>

#include <benchmark/benchmark.h>

struct gb_state {
    benchmark::State *state;
};

namespace {

struct Entry {
    std::string name;
    gb_function *function;
    void *user;
    bool once;
};

std::vector<Entry> &entries() {
    static std::vector<Entry> all;
    return all;
}

const std::string suffix = "/manual_time";

// Hands reports on with the plain names.
class PlainNames : public benchmark::BenchmarkReporter {
  public:
    explicit PlainNames(benchmark::BenchmarkReporter *reporter) : inner(reporter) {
    }

    bool ReportContext(const Context &context) override {
        Context plain = context;
        if (plain.name_field_width > suffix.size())
            plain.name_field_width -= suffix.size();
        inner->SetOutputStream(&GetOutputStream());
        inner->SetErrorStream(&GetErrorStream());
        return inner->ReportContext(plain);
    }

    void ReportRuns(const std::vector<Run> &runs) override {
        std::vector<Run> plain = runs;
        for (Run &run : plain) {
            run.run_name.time_type.clear();
            run.run_name.iterations.clear();
        }
        inner->ReportRuns(plain);
    }

    void Finalize() override {
        inner->Finalize();
    }

  private:
    std::unique_ptr<benchmark::BenchmarkReporter> inner;
};

// The value of one of Google Benchmark's options, which it does not tell itself.
std::string option(int argc, char **argv, const char *name, const char *otherwise) {
    std::string value = otherwise;
    const std::string prefix = std::string("--") + name;
    for (int i = 1; i < argc; i++) {
        if (argv[i] == prefix)
            value = "true";
        else if (std::strncmp(argv[i], (prefix + "=").c_str(), prefix.size() + 1) == 0)
            value = argv[i] + prefix.size() + 1;
    }
    return value;
}

// --benchmark_filter: a regular expression, or "-" and what not to run. False after a complaint.
bool filter(std::string pattern, std::vector<Entry> &left) {
    if (pattern.empty() || pattern == "all")
        pattern = ".";
    const bool keep = pattern[0] != '-';
    regex_t expression;
    if (regcomp(&expression, pattern.c_str() + !keep, REG_EXTENDED | REG_NOSUB) != 0) {
        std::cerr << "--benchmark_filter: not a regular expression: " << pattern << '\n';
        return false;
    }
    for (const Entry &entry : entries()) {
        if ((regexec(&expression, entry.name.c_str(), 0, nullptr, 0) == 0) == keep)
            left.push_back(entry);
    }
    regfree(&expression);
    return true;
}

int run_entries(const std::vector<Entry> &left, const std::string &out, const std::string &format) {
    for (const Entry &entry : left) {
        auto *added = benchmark::RegisterBenchmark(entry.name.c_str(),
                                                   [entry](benchmark::State &state) {
                                                       gb_state wrapped = {&state};
                                                       entry.function(&wrapped, entry.user);
                                                   })
                          ->UseManualTime()
                          ->Unit(benchmark::kMicrosecond);
        if (entry.once)
            added->Iterations(1);
    }
    PlainNames display(benchmark::CreateDefaultDisplayReporter());
    if (out.empty()) {
        benchmark::RunSpecifiedBenchmarks(&display, nullptr, ".");
    } else {
        PlainNames file(
            format == "console"
                ? new benchmark::ConsoleReporter(benchmark::ConsoleReporter::OO_Tabular)
                : static_cast<benchmark::BenchmarkReporter *>(new benchmark::JSONReporter));
        benchmark::RunSpecifiedBenchmarks(&display, &file, ".");
    }
    benchmark::Shutdown();
    return GB_DONE;
}

} // namespace

void gb_register(const char *name, gb_function *function, void *user) {
    entries().push_back({name, function, user, false});
}

void gb_register_once(const char *name, gb_function *function, void *user) {
    entries().push_back({name, function, user, true});
}

int64_t gb_next(gb_state *state, int64_t most) {
    benchmark::State &s = *state->state;
    const int64_t left = s.max_iterations - s.iterations();
    const int64_t calls = std::max<int64_t>(1, std::min(most, left));
    if (!s.KeepRunningBatch(calls))
        return 0;
    gb_pause(state);
    return calls;
}

// After SkipWithError the timer is stopped for good.
void gb_resume(gb_state *state) {
    if (!state->state->error_occurred())
        state->state->ResumeTiming();
}

void gb_pause(gb_state *state) {
    if (!state->state->error_occurred())
        state->state->PauseTiming();
}

void gb_time(gb_state *state, double seconds) {
    state->state->SetIterationTime(seconds);
    gb_resume(state);
}

void gb_counter(gb_state *state, const char *name, double value) {
    state->state->counters[name] = value;
}

void gb_label(gb_state *state, const char *label) {
    state->state->SetLabel(label);
}

void gb_skip(gb_state *state, const char *reason) {
    state->state->SkipWithError(reason);
}

void gb_context(const char *key, const char *value) {
    benchmark::AddCustomContext(key, value);
}

int gb_run(int argc, char **argv) {
    const std::string out = option(argc, argv, "benchmark_out", "");
    const std::string format = option(argc, argv, "benchmark_out_format", "json");
    const bool list = option(argc, argv, "benchmark_list_tests", "false") == "true";
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return GB_FAILED;
    std::vector<Entry> left;
    if (!filter(benchmark::GetBenchmarkFilter(), left))
        return GB_FAILED;
    if (left.empty())
        return GB_NONE;
    if (!list)
        return run_entries(left, out, format);
    for (const Entry &entry : left)
        std::cout << entry.name << '\n';
    return GB_DONE;
}
