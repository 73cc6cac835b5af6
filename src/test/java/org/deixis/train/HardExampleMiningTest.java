package org.deixis.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.deixis.data.Dataset;
import org.deixis.data.Sample;
import org.deixis.data.SampleWeights;
import org.deixis.data.SceneMaker;
import org.junit.jupiter.api.Test;

class HardExampleMiningTest {
  private final Dataset data =
      SceneMaker.dataset(new SceneMaker.Spec("simple", 32, 4, 0, 2, 3), SceneMaker.TRAIN);
  private final SampleWeights weights = new SampleWeights(data);
  private final HardExampleMining mining = new HardExampleMining(weights);
  private final Sample easy = data.samples().get(0);
  private final Sample hard = data.samples().get(3);
  private final Sample unseen = data.samples().get(5);

  private void step(float easyLoss, float hardLoss) {
    mining.update(new Sample[] {easy, hard}, new float[] {easyLoss, hardLoss});
  }

  @Test
  void weightsFollowTheFormula() {
    step(0.5f, 2);
    double mean = 0.5; // the first loss of all
    double easyWeight = 0.7 + 0.3 * 0.5 / mean;
    mean = 0.99 * mean + 0.01 * 2;
    double hardWeight = 0.7 + 0.3 * 2 / mean;
    assertEquals(mean, mining.mean(), 1e-12);
    assertEquals(easyWeight, weights.get(easy), 1e-12);
    assertEquals(hardWeight, weights.get(hard), 1e-12);
    assertEquals(1, weights.get(unseen));
  }

  @Test
  void whatStaysHardIsDrawnMoreOftenAndNothingIsStarved() {
    for (int i = 0; i < 200; i++) {
      step(0.01f, 3);
    }
    assertTrue(weights.get(hard) > 1.5, "hard: " + weights.get(hard));
    assertEquals(0.25, weights.get(easy), 1e-12);
    for (int i = 0; i < 400; i++) {
      step(3, 1e-4f);
    }
    assertTrue(weights.get(easy) > weights.get(hard), "what was learnt is hard no more");
    assertTrue(weights.get(easy) <= 4);
  }

  @Test
  void aLossThatIsNoNumberChangesNothing() {
    step(1, 1);
    double before = weights.get(hard);
    mining.update(new Sample[] {hard}, new float[] {Float.NaN});
    assertEquals(before, weights.get(hard));
    assertEquals(1, mining.mean(), 1e-6);
  }

  @Test
  void restoredItGoesOnAsBefore() {
    step(0.5f, 2);
    double[] saved = weights.values();
    double mean = mining.mean();
    step(0.25f, 3);
    double after = weights.get(hard);
    weights.restore(saved);
    mining.mean(mean);
    step(0.25f, 3);
    assertEquals(after, weights.get(hard));
  }
}
