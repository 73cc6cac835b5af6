package org.deixis.infer;

import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.List;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Download;
import org.deixis.backend.GraphCache;
import org.deixis.backend.OutOfMemoryException;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.data.RgbImage;
import org.deixis.model.bert.TextBatch;
import org.deixis.model.bert.Tokens;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.PictureEncoding;
import org.deixis.model.gres.Prediction;
import org.deixis.nn.Parameter;
import org.deixis.tensor.Tensor;

/**
 * The model's two halves as graphs of a device that has them ({@link GraphCache}): one takes a
 * picture to its encoding, and one for each number of phrases, of tokens and of regions takes the
 * encoding and the phrases to logits. A call only puts work into the device's queue, one thread at
 * a time, and asks for the logits; they are waited for outside, so that the next thread's call
 * overlaps.
 */
public final class ForwardGraphs implements AutoCloseable {
  /** What decides which calls are made of phrases; those of the picture are always the same. */
  private record Key(int phrases, int tokens, int regions) {}

  /** Logits of some phrases, on their way from the device. */
  private record Answer(
      Download mask, Download regions, Download negatives, int rows, int columns) {
    Logits take() {
      return new Logits(floats(mask), floats(regions), floats(negatives), rows, columns);
    }

    private static float[] floats(Download from) {
      FloatBuffer floats = from.get().asFloatBuffer();
      float[] values = new float[floats.remaining()];
      floats.get(values);
      return values;
    }
  }

  /** What the graphs of phrases read and write besides the encoding. */
  private record Slot(TextBatch text, Array mask, Array regions, Array negatives) {
    List<Array> all() {
      List<Array> all = new ArrayList<>(List.of(mask, regions, negatives));
      for (Tensor t : new Tensor[] {text.ids(), text.mask(), text.positions(), text.padding()}) {
        if (t != null) {
          all.add(t.array());
        }
      }
      return all;
    }
  }

  private final Backend backend;
  private final GuideModel model;
  private final List<Parameter> parameters;
  private final GraphCache<String, Tensor> ofPictures;
  private final GraphCache<Key, Slot> ofPhrases;

  /** What the graph of pictures reads and writes; null until the first call. */
  private Tensor pixels;

  private PictureEncoding encoding;

  /** Of the parameters that all of this was made with. */
  private long layout;

  public ForwardGraphs(Backend backend, GuideModel model) {
    this.backend = backend;
    this.model = model;
    parameters = List.copyOf(model.parameters().values());
    int most = GraphCache.most();
    ofPictures = new GraphCache<>(backend, Math.min(1, most));
    ofPhrases = new GraphCache<>(backend, most);
  }

  /** Whether the device has graphs and they are wanted. */
  public boolean available() {
    return ofPhrases.available();
  }

  /** Graphs kept at present, the picture's among them. */
  public synchronized int size() {
    return ofPictures.size() + ofPhrases.size();
  }

  /**
   * Logits of groups of phrases about a picture of the model's size; waits for them.
   *
   * @return those of each group, or null when the device's memory does not hold graphs beside what
   *     else is there: they were given up, and the caller does without
   */
  public List<Logits> logits(RgbImage picture, List<Tokens> groups, int regions) {
    List<Answer> asked = ask(picture, groups, regions);
    return asked == null ? null : asked.stream().map(Answer::take).toList();
  }

  private synchronized List<Answer> ask(RgbImage picture, List<Tokens> groups, int regions) {
    List<Answer> answers = new ArrayList<>();
    try (Scope scope = Scope.open()) {
      encode(picture);
      for (Tokens phrases : groups) {
        Key key = new Key(phrases.batch(), phrases.length(), regions);
        Slot slot = ofPhrases.run(key, false, new Decode(phrases, regions));
        answers.add(
            new Answer(
                backend.download(slot.mask),
                backend.download(slot.regions),
                backend.download(slot.negatives),
                slot.mask.dim(1),
                slot.mask.dim(2)));
      }
      return answers;
    } catch (OutOfMemoryException e) {
      answers.forEach(Answer::take); // or they would hold page-locked memory
      if (pixels == null && size() == 0) {
        throw e;
      }
      close();
      backend.memory().trim();
      return null;
    }
  }

  /** Changes with what the forward reads: {@link Parameter#layout} only grows. */
  private long layout() {
    long sum = model.training() ? 1 : 0;
    for (Parameter p : parameters) {
      sum += 2 * p.layout();
    }
    return sum;
  }

  private void encode(RgbImage picture) {
    if (pixels != null && layout != layout()) {
      close();
    }
    if (pixels == null) {
      // The first time as it is: a model may keep tables for a size of picture.
      try (Scope scope = Scope.open()) {
        Tensor own = Tensor.bytes(backend, picture.data(), 1, picture.height(), picture.width(), 3);
        PictureEncoding made = model.encodePictures(own);
        made.laterals().forEach(t -> Scope.detach(t.array()));
        Scope.detach(own.array());
        encoding = made;
        pixels = own;
        layout = layout();
      }
      return;
    }
    ofPictures.run("picture", false, new Encode(picture));
  }

  /** From the pixels to the encoding, which belong to no graph: those of phrases read them too. */
  private final class Encode implements GraphCache.Work<Tensor> {
    private final RgbImage picture;

    Encode(RgbImage picture) {
      this.picture = picture;
    }

    @Override
    public Tensor make() {
      fill(pixels);
      return pixels;
    }

    @Override
    public void fill(Tensor to) {
      to.set(picture.data());
    }

    @Override
    public void run(Tensor from) {
      try (Scope scope = Scope.open()) {
        List<Tensor> made = model.encodePictures(from).laterals();
        for (int i = 0; i < made.size(); i++) {
          backend.copy(made.get(i).array(), encoding.laterals().get(i).array());
        }
      }
    }

    @Override
    public List<Array> all(Tensor arrays) {
      return List.of();
    }
  }

  private final class Decode implements GraphCache.Work<Slot> {
    private final Tokens phrases;
    private final int regions;

    Decode(Tokens phrases, int regions) {
      this.phrases = phrases;
      this.regions = regions;
    }

    @Override
    public Slot make() {
      int b = phrases.batch();
      Tensor finest = encoding.laterals().get(0);
      return new Slot(
          model.upload(phrases),
          backend.allocate(Shape.of(b, finest.dim(1), finest.dim(2)), DType.F32),
          backend.allocate(Shape.of(b, regions), DType.F32),
          backend.allocate(Shape.of(b), DType.F32));
    }

    @Override
    public void fill(Slot slot) {
      model.upload(phrases, slot.text);
    }

    @Override
    public void run(Slot slot) {
      try (Scope scope = Scope.open()) {
        Prediction p = model.predict(encoding, slot.text, regions);
        backend.copy(p.mask().array(), slot.mask);
        backend.copy(p.regionLogits().array(), slot.regions);
        backend.copy(p.isNegative().array(), slot.negatives);
      }
    }

    @Override
    public List<Array> all(Slot slot) {
      return slot.all();
    }
  }

  /** Gives up the graphs and their memory; later calls may make new ones. */
  @Override
  public synchronized void close() {
    ofPictures.close();
    ofPhrases.close();
    if (pixels != null) {
      pixels.array().release();
      encoding.laterals().forEach(t -> t.array().release());
      pixels = null;
      encoding = null;
    }
  }
}
