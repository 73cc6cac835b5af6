package org.deixis.infer;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.data.BitMask;
import org.deixis.data.Complexity;
import org.deixis.data.Images;
import org.deixis.data.RgbImage;
import org.deixis.data.TextTokenizer;
import org.deixis.model.bert.Tokens;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.PictureEncoding;
import org.deixis.model.gres.RegionGrid;
import org.deixis.tensor.Tensor;

/**
 * Points with words: given a picture and phrases, answers with the mask of every object that each
 * phrase names. May be called from any number of threads.
 *
 * <pre>{@code
 * try (Segmenter segmenter = Segmenter.open(Path.of("model"), "cpu")) {
 *   Segmentation found = segmenter.segment(Path.of("street.jpg"), "the two people on the left");
 *   if (!found.saysNoTarget()) {
 *     System.out.println(found.box());
 *   }
 * }
 * }</pre>
 */
public final class Segmenter implements AutoCloseable {
  /** From this probability on, a phrase is said to point at nothing. */
  public static final double EXPECT_NONE = 0.5;

  /** Parts of a mask below this share of its area get no box of their own. */
  private static final double SMALLEST_PART = 0.01;

  /** Phrases that are run at once: bounds the memory that many phrases need. */
  private static final int AT_ONCE = 16;

  private final GuideModel model;
  private final TextTokenizer tokenizer;
  private final double expectNone;
  private final Backend backend;
  private final ModelFolder owned;
  private final ForwardGraphs graphs;
  private final ReadWriteLock use = new ReentrantReadWriteLock();
  private boolean closed;

  private Segmenter(
      GuideModel model,
      TextTokenizer tokenizer,
      Backend backend,
      double expectNone,
      ModelFolder owned) {
    if (!(expectNone >= 0 && expectNone <= 1)) {
      throw new InputException("expect-none " + expectNone + ": give a probability, 0 to 1");
    }
    this.model = model;
    this.tokenizer = tokenizer;
    this.backend = backend;
    this.expectNone = expectNone;
    this.owned = owned;
    graphs = new ForwardGraphs(backend, model);
  }

  /**
   * Loads a model folder onto a device ("cpu", "cuda", "reference").
   *
   * @throws InputException when the folder or the device cannot be used
   */
  public static Segmenter open(Path modelFolder, String device) {
    return open(modelFolder, device, EXPECT_NONE);
  }

  /**
   * @param expectNone probability of "no target" from which on the answer is an empty mask: lower
   *     it where most phrases point at nothing, raise it where hardly any does
   */
  public static Segmenter open(Path modelFolder, String device, double expectNone) {
    return open(modelFolder, device, expectNone, DType.F32);
  }

  /**
   * @param precision type that products and convolutions multiply in: F32, or F16 or BF16 where the
   *     device gains from it
   */
  public static Segmenter open(
      Path modelFolder, String device, double expectNone, DType precision) {
    Backend backend = Backends.get(device);
    ModelFolder folder = ModelFolder.load(modelFolder, backend);
    try {
      folder.model().freeze(precision);
      return new Segmenter(folder.model(), folder.tokenizer(), backend, expectNone, folder);
    } catch (RuntimeException e) {
      folder.close();
      throw e;
    }
  }

  /**
   * Over a model at hand, in eval mode, which stays the caller's to close; close the segmenter
   * before it.
   */
  public static Segmenter of(
      GuideModel model, TextTokenizer tokenizer, Backend backend, double expectNone) {
    ModelFolder.checkVocabulary("segmenter", model.config(), tokenizer);
    return new Segmenter(model, tokenizer, backend, expectNone, null);
  }

  public GresConfig config() {
    return model.config();
  }

  /** What the phrase points at in a JPEG or PNG file, seen upright. */
  public Segmentation segment(Path image, String phrase) {
    return segment(image, List.of(phrase)).get(0);
  }

  /** What each phrase points at; the picture is read and encoded once. */
  public List<Segmentation> segment(Path image, List<String> phrases) {
    return segment(Images.readUpright(image), phrases);
  }

  /** What the phrase points at in the bytes of a JPEG or PNG file, seen upright. */
  public Segmentation segment(byte[] image, String phrase) {
    return segment(Images.decode(image, "picture", true), List.of(phrase)).get(0);
  }

  /** What each phrase points at in a decoded picture, in the order of the phrases. */
  public List<Segmentation> segment(RgbImage image, List<String> phrases) {
    GresConfig config = model.config();
    List<int[]> ids = new ArrayList<>();
    for (String phrase : phrases) {
      ids.add(tokenizer.encode(phrase, config.maxTokens()));
    }
    RgbImage sized = Images.resize(image, config.imageHeight(), config.imageWidth());
    int regions =
        config.adaptive() ? RegionGrid.regionsFor(Complexity.of(sized)) : config.regions();
    List<Tokens> groups = new ArrayList<>();
    for (int from = 0; from < ids.size(); from += AT_ONCE) {
      groups.add(
          Tokens.pad(ids.subList(from, Math.min(ids.size(), from + AT_ONCE)), tokenizer.padId()));
    }
    List<Logits> logits;
    use.readLock().lock();
    try {
      if (closed) {
        throw new IllegalStateException("this segmenter is closed");
      }
      logits = groups.isEmpty() ? List.of() : logits(sized, groups, regions);
    } finally {
      use.readLock().unlock();
    }
    List<Segmentation> found = new ArrayList<>();
    for (Logits group : logits) {
      for (int i = 0; i < group.negatives().length; i++) {
        found.add(segmentation(image, phrases.get(found.size()), group, i));
      }
    }
    return found;
  }

  /** Of each group of phrases; the picture is encoded once. */
  private List<Logits> logits(RgbImage sized, List<Tokens> groups, int regions) {
    List<Logits> replayed = graphs.available() ? graphs.logits(sized, groups, regions) : null;
    if (replayed != null) {
      return replayed;
    }
    List<Logits> logits = new ArrayList<>();
    try (Scope scope = Scope.open()) {
      PictureEncoding encoding =
          model.encodePictures(
              Tensor.bytes(backend, sized.data(), 1, sized.height(), sized.width(), 3));
      for (Tokens phrases : groups) {
        try (Scope inner = Scope.open()) {
          logits.add(Logits.of(model.predict(encoding, model.upload(phrases), regions)));
        }
      }
    }
    return logits;
  }

  private Segmentation segmentation(RgbImage image, String phrase, Logits logits, int i) {
    int size = logits.rows() * logits.columns();
    float[] own = Arrays.copyOfRange(logits.mask(), i * size, (i + 1) * size);
    BitMask drawn =
        MaskUpsampling.positive(
            own, logits.rows(), logits.columns(), image.height(), image.width());
    double none = sigmoid(logits.negatives()[i]);
    boolean says = none >= expectNone;
    BitMask mask = says ? BitMask.empty(image.height(), image.width()) : drawn;
    int count = logits.count();
    List<Double> probabilities = new ArrayList<>();
    for (int r = 0; r < count; r++) {
      probabilities.add(sigmoid(logits.regions()[i * count + r]));
    }
    return new Segmentation(
        phrase,
        mask,
        drawn,
        none,
        says,
        List.copyOf(probabilities),
        RegionGrid.of(count).rows(),
        mask.boundingBox(),
        Components.boxes(mask, SMALLEST_PART));
  }

  private static double sigmoid(double x) {
    return 1 / (1 + Math.exp(-x));
  }

  /** Graphs of the device kept at present, 0 where it has none. */
  int graphs() {
    return graphs.size();
  }

  /** Waits for calls in progress, then frees what {@link #open} loaded, and the graphs. */
  @Override
  public void close() {
    use.writeLock().lock();
    try {
      if (!closed) {
        closed = true;
        graphs.close();
        if (owned != null) {
          owned.close();
        }
      }
    } finally {
      use.writeLock().unlock();
    }
  }
}
