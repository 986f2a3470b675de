// The multiply-add rate that this machine reaches at best, measured.
#ifndef GOSSAMER_BENCH_PEAK_H_
#define GOSSAMER_BENCH_PEAK_H_

namespace gossamer {

// Multiply-adds a second of one thread, in registers only, by the instruction set that the dispatch chooses.
double MeasurePeak();

}  // namespace gossamer

#endif  // GOSSAMER_BENCH_PEAK_H_
