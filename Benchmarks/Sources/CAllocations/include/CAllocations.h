#ifndef ASHLAR_CALLOCATIONS_H
#define ASHLAR_CALLOCATIONS_H

/// How often memory was taken from the heap since the process began, by whatever name. One thread only may measure.
unsigned long ashlar_allocations(void);

#endif
