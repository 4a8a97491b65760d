#include "hwprofiles/measurement.h"
