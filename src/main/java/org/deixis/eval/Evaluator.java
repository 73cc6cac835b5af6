package org.deixis.eval;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.deixis.data.BitMask;
import org.deixis.data.Dataset;
import org.deixis.data.Picture;
import org.deixis.data.RgbImage;
import org.deixis.data.Sample;
import org.deixis.infer.Segmentation;
import org.deixis.infer.Segmenter;

/**
 * Runs a {@link Segmenter} over a data set, every picture with all of its phrases, at the pictures'
 * own size.
 */
public final class Evaluator {
  /** Hears of every expression as it is counted. */
  public interface Listener {
    /**
     * @param done expressions counted so far, this one included
     * @param iou what it adds to gIoU
     */
    void counted(
        int done, Sample sample, RgbImage picture, BitMask truth, Segmentation found, double iou);
  }

  private Evaluator() {}

  /**
   * @param listener or null
   */
  public static Metrics run(Segmenter segmenter, Dataset dataset, Listener listener) {
    Map<Picture, List<Sample>> byPicture = new LinkedHashMap<>();
    for (Sample sample : dataset.samples()) {
      byPicture.computeIfAbsent(sample.picture(), p -> new ArrayList<>()).add(sample);
    }
    Metrics metrics = new Metrics();
    int done = 0;
    for (Map.Entry<Picture, List<Sample>> entry : byPicture.entrySet()) {
      RgbImage picture = entry.getKey().read();
      List<Segmentation> found =
          segmenter.segment(picture, entry.getValue().stream().map(Sample::phrase).toList());
      for (int i = 0; i < found.size(); i++) {
        Sample sample = entry.getValue().get(i);
        Segmentation one = found.get(i);
        BitMask truth = sample.mask();
        double iou = metrics.add(one.mask().data(), truth.data(), one.saysNoTarget(), kind(sample));
        done++;
        if (listener != null) {
          listener.counted(done, sample, picture, truth, one, iou);
        }
      }
    }
    return metrics;
  }

  private static Metrics.Kind kind(Sample sample) {
    return Metrics.Kind.valueOf(sample.kind().name());
  }
}
