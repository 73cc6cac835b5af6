package org.deixis.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.deixis.backend.Backend;
import org.deixis.backend.GraphCache;
import org.deixis.backend.Memory;
import org.deixis.core.DType;
import org.deixis.optim.AdamWOptimizer.LossScaling;
import org.deixis.testing.CudaHost;
import org.deixis.train.CudaStepGraphs.Setting;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/**
 * Training with the pool that a real device has, whose buffers were others before: against the same
 * steps where each buffer is new, poisoned and guarded. Bit for bit.
 */
@Tag("cuda-host")
class CudaHostCachingTest {
  private static final int STEPS = 4;

  @AfterEach
  void defaults() {
    System.clearProperty("deixis.graphs");
  }

  @Test
  void theSameStepsAsInNewMemory() {
    LossScaling tooLarge = new LossScaling(0x1p18, 2);
    CudaTraining.Run fresh = CudaTraining.train(CudaHost.backend(), DType.F16, tooLarge, STEPS);
    Backend caching = CudaHost.caching();
    assertEquals(fresh, CudaTraining.train(caching, DType.F16, tooLarge, STEPS));
    assertTrue(fresh.status().skipped() > 0, "2¹⁸ does not overflow");
    Memory.Stats stats = caching.memory().stats();
    assertTrue(stats.reserved() > stats.live(), "the pool kept nothing: " + stats);
  }

  /** Two shapes and more, and what they share is given back and taken again between replays. */
  @Test
  void replayedStepsAreTheSameSteps() {
    Setting setting = new Setting(DType.F32, LossScaling.NONE, STEPS + 2, 1, false, false);
    CudaStepGraphs.Run fresh = CudaStepGraphs.train(CudaHost.backend(), setting, 0);
    CudaStepGraphs.Run graphs = CudaStepGraphs.train(CudaHost.caching(), setting, GraphCache.MOST);
    CudaStepGraphs.same(fresh, graphs);
  }
}
